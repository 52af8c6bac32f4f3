"""A server that may reach loopback upstreams, and a misbehaving one for it to reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import NoriaServer, running_server

from .upstream import Upstream, running_upstream


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NoriaServer, Upstream]]:
    env = {"NORIA_ALLOW_PRIVATE_URLS": "true", "NORIA_REQUEST_TIMEOUT_S": "3"}
    keys = {"DEEPSEEK_API_KEY": "sk-deepseek", "VLLM_API_KEY": "sk-from-env", "OPENAI_API_KEY": "sk-openai"}
    with running_upstream() as upstream:
        own = {"VLLM_BASE_URL": upstream.url, "AZURE_OPENAI_ENDPOINT": upstream.url}  # the operator's own word
        with running_server(tmp_path_factory.mktemp("wire"), **env, **keys, **own) as server:
            server.add_model(remote("remote", upstream, price={"input": 2.0, "output": 10.0, "cached_input": 1.0}))
            yield server, upstream


@pytest.fixture
def server(running: tuple[NoriaServer, Upstream]) -> NoriaServer:
    return running[0]


@pytest.fixture
def upstream(running: tuple[NoriaServer, Upstream]) -> Upstream:
    running[1].planned.clear()
    running[1].seen.clear()
    return running[1]


def remote(name: str, upstream: Upstream, **fields: Any) -> dict[str, Any]:
    card = {"id": name, "source": "provider", "provider": "custom", "upstream": "upstream-model", "base_url": upstream.url}
    return {**card, **fields}
