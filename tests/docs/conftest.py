"""A server for the documentation's examples: the names that the pages use stand for scripted models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SCRIPTED_CHAT, SCRIPTED_EMBEDDING, NoriaServer, running_server

_CHAT = ("smollm2-135m-instruct", "openai/gpt-4o-mini", "deepseek/deepseek-chat", "qwen/qwen-plus")


@pytest.fixture(scope="session")
def docs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    """Real but for the models: a user's entry wins over the catalogue's, so that no weights and no network are needed."""
    home: Path = tmp_path_factory.mktemp("docs")
    env = {"NORIA_ALLOW_ENGINE_COMMANDS": "true", "NORIA_EMBEDDING_MODEL": SCRIPTED_EMBEDDING["id"]}
    with running_server(home, scripted=False, **env) as server:
        for name in _CHAT:
            server.add_model({**SCRIPTED_CHAT, "id": name})
        server.add_model(SCRIPTED_EMBEDDING)
        yield server


@pytest.fixture
def at_the_docs_server(docs_server: NoriaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with documents, and the environment that the pages ask for. Stores and files go at the end."""
    (tmp_path / "my-docs").mkdir()
    for folder in (tmp_path, tmp_path / "my-docs"):
        for sample in (Path(__file__).parent / "samples").iterdir():
            (folder / sample.name).write_bytes(sample.read_bytes())
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "OPENAI_BASE_URL": f"{docs_server.url}/v1",
        "OPENAI_API_KEY": docs_server.token,
        "NORIA_URL": docs_server.url,
        "NORIA_API_KEY": docs_server.token,
        "NORIA_HOME": str(docs_server.home),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "NO_COLOR": "1",
    }.items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    with docs_server.client() as client:
        for kind in ("vector_stores", "files"):
            for row in client.get(f"/v1/{kind}", params={"limit": 100}).json()["data"]:
                client.delete(f"/v1/{kind}/{row['id']}").raise_for_status()
