"""What `noria up` does once the server listens: missing weights, warm engines, the documentation, and the greeting."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from noria import __version__
from noria.errors import NoriaError, NotFound, UpstreamError
from noria.settings import Settings

from ._api import Api
from ._connection import Running
from ._show import note, progress

__all__ = ["DOCS_STORE", "docs_folder", "index_docs", "print_banner", "pull", "pull_missing", "warm"]

DOCS_STORE = "noria-docs"
_POLL_S = 0.3


def pull_missing(api: Api) -> None:
    """Pulls the default models that are not on disk. Without network it says so: what is on disk still serves."""
    status = api.get("/v1/noria/status")
    for model in (status["chat_model"], status["embedding_model"]):
        try:
            card = api.get(f"/v1/noria/models/{quote(model)}")
        except NotFound as error:
            note(f"{error} (It is chat_model or embedding_model in the settings.)")
            continue
        if card["state"] != "missing_weights":
            continue
        try:
            pull(api, card["id"])
        except NoriaError as error:
            note(
                f"{card['id']} could not be pulled: {error}\nGoing on without it; try again with: noria models pull {card['id']}"
            )


def pull(api: Api, model: str) -> dict[str, Any]:
    """Pulls a model's weights, with a progress bar, and returns the job that did it."""
    job = api.post("/v1/noria/pulls", {"model": model})
    note(f"Pulling {model}…")
    with progress(by_bytes=True) as bar:
        task = bar.add_task("queued", total=None, detail="")
        while job["status"] in {"queued", "running"}:
            detail = job["detail"]
            stage, file = detail.get("stage") or job["status"], detail.get("file") or ""
            bar.update(task, description=stage, completed=job["done"] or 0, total=job["total"] or None, detail=file)
            time.sleep(_POLL_S)
            job = api.get(f"/v1/noria/jobs/{job['id']}")
    if job["status"] != "completed":
        raise UpstreamError(f"Pulling {model} {job['status']}: {job['error'] or 'no reason given'}")
    return job


def warm(api: Api) -> None:
    """Loads both default engines, so that the first question does not wait for them. Remote models are left alone."""
    status = api.get("/v1/noria/status")
    chat, embedding = status["chat_model"], status["embedding_model"]
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        chat: ("/v1/noria/tokens", {"model": chat, "text": "Hi"}),  # loads the engine and leaves no trace in the list
        embedding: ("/v1/embeddings", {"model": embedding, "input": "Hi"}),
    }

    def load(model: str) -> None:
        if api.get(f"/v1/noria/models/{quote(model)}")["source"] == "engine":
            path, body = calls[model]
            api.post(path, body)

    with ThreadPoolExecutor(2) as pool:
        for model, call in {model: pool.submit(load, model) for model in calls}.items():
            try:
                call.result()
            except NoriaError as error:
                note(f"{model} is not ready: {error}")


def index_docs(api: Api) -> None:
    """Noria's own documentation as a vector store: the first time, and after an upgrade the pages that changed."""
    from ._file_choice import Found, LocalFile
    from ._ingesting import Plan, ingest

    folder = docs_folder()
    if folder is None:
        return
    store = api.find(f"/v1/vector_stores/{DOCS_STORE}")
    if store is not None and store["metadata"].get("noria_version") == __version__ and not store["file_counts"]["in_progress"]:
        return
    note(f"Indexing Noria's documentation as the vector store {DOCS_STORE}…")
    # Known by their place within the documentation: the next version's may lie elsewhere on the disk.
    pages = tuple(LocalFile(page, str(page.relative_to(folder))) for page in sorted(folder.rglob("*.md")))
    result = ingest(api, Plan(DOCS_STORE, Found(pages, prefixes=("",)), prune=True))
    failed = f", {len(result.failed)} failed" if result.failed else ""
    if not result.failed:
        api.post(f"/v1/vector_stores/{result.store_id}", {"metadata": {"noria_version": __version__}})
    note(f"{DOCS_STORE} is ready: {len(pages) - len(result.failed)} pages{failed}.")


def docs_folder() -> Path | None:
    """The documentation: inside the installed package, or beside the sources in a checkout."""
    package = Path(str(resources.files("noria")))
    for folder in (package / "_docs", package.parent.parent / "docs"):
        if (
            folder.is_dir()
            and any(folder.rglob("*.md"))
            and (folder.name == "_docs" or (folder.parent / "pyproject.toml").exists())
        ):
            return folder
    return None


def print_banner(settings: Settings, running: Running, console: str | None) -> None:
    print("\n".join(_banner(settings, running.url, console)), flush=True)


def _banner(settings: Settings, url: str, console: str | None) -> Iterator[str]:
    import json

    home: Sequence[str] = () if settings.home == Path.home() / ".noria" else ("--home", str(settings.home))
    body = json.dumps({"model": settings.chat_model, "input": "Hello!"})
    yield ""
    yield "  Noria is ready."
    yield ""
    yield f"  API       {url}/v1"
    yield f"  Console   {console}" if console else "  Console   not running"
    yield ""
    yield f"  curl {url}/v1/responses \\"
    yield "    -H 'content-type: application/json' \\"
    yield f"    -d '{body}'"
    yield ""
    yield f"  export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=none"
    yield "  from openai import OpenAI"
    yield f'  reply = OpenAI().responses.create(model="{settings.chat_model}", input="Hello!")'
    yield "  print(reply.output_text)"
    yield ""
    yield f'  noria ask "How do I add a model?" --store {DOCS_STORE}' + "".join(f" {part}" for part in home)
    yield ""
    yield "  Ctrl-C stops it."
