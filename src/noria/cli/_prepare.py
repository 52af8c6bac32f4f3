"""What `noria up` does once the server listens: missing weights, warm engines, the documentation, and the greeting."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from noria.client import Announced
from noria.errors import NoriaError, NotFound
from noria.settings import Settings

from ._api import Api
from ._show import note
from ._watching import watch_job

__all__ = ["DOCS_STORE", "docs_folder", "import_gguf", "index_docs", "merge", "print_banner", "pull", "pull_missing", "warm"]

DOCS_STORE = "noria-docs"


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
    note(f"Pulling {model}…")
    return watch_job(api, api.post("/v1/noria/pulls", {"model": model}), f"Pulling {model}", by_bytes=True)


def import_gguf(api: Api, model: str, source: str, title: str) -> dict[str, Any]:
    """Makes a model of a GGUF file, with a progress bar, and returns its card. A file's path may be relative."""
    if source.startswith("file:"):
        source = f"file:{Path(source.removeprefix('file:')).expanduser().absolute()}"
    job = api.post("/v1/noria/imports", {"model": model, "gguf": source, "title": title})
    note(f"Making {model} from {source}…")
    watch_job(api, job, f"Making {model} from {source}", by_bytes=True)
    return api.get(f"/v1/noria/models/{quote(model)}")


def merge(api: Api, model: str, form: str) -> dict[str, Any]:
    """Merges a tuned model into its base and returns the job, whose detail names the folder on the server's machine."""
    job = api.post(f"/v1/noria/models/{quote(model)}/merge", {"format": form})
    note(f"Merging {model}…")
    return watch_job(api, job, f"Merging {model}", by_bytes=True)


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
    """Noria's own documentation as a vector store: all of it the first time, later the pages that have changed."""
    from ._file_choice import Found, LocalFile
    from ._ingesting import Plan, ingest

    folder = docs_folder()
    if folder is None:
        return
    if api.find(f"/v1/vector_stores/{DOCS_STORE}") is None:
        note(f"Indexing Noria's documentation as the vector store {DOCS_STORE}…")
        api.post("/v1/vector_stores", {"name": DOCS_STORE, "description": "Noria's own documentation"})
    # Known by their place within the documentation: the next version's may lie elsewhere on the disk.
    pages = tuple(LocalFile(page, str(page.relative_to(folder))) for page in sorted(folder.rglob("*.md")))
    result = ingest(api, Plan(DOCS_STORE, Found(pages, (folder,), root=folder), prune=True))
    for path, error in result.failed.items():
        note(f"{path}: {error}")
    if result.added or result.replaced or result.removed:
        note(f"{DOCS_STORE} is ready: {len(pages) - len(result.failed)} pages.")


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


def print_banner(settings: Settings, running: Announced, console: str | None, *, keys: bool) -> None:
    """Where everything is, and three ways to begin. `keys`: API keys exist, so that every call needs one."""
    print("\n".join(_banner(settings, running.url, console, keys=keys)), flush=True)


def _banner(settings: Settings, url: str, console: str | None, *, keys: bool) -> Iterator[str]:
    body = json.dumps({"model": settings.chat_model, "input": "Hello!"})
    yield ""
    yield "  Noria is ready."
    yield ""
    yield f"  API       {url}/v1"
    yield f"  Console   {console or 'not running'}"
    if console and keys and not sys.stdout.isatty():
        yield "  Sign in there with an API key; the owner's own address is shown by `noria up` in a terminal of this machine."
    if not settings.loopback and not keys:
        yield "  Until an API key exists, only this machine is served: noria keys create NAME"
    yield ""
    yield f"  curl {url}/v1/responses \\"
    if keys:
        yield '    -H "authorization: Bearer $NORIA_API_KEY" \\'
    yield "    -H 'content-type: application/json' \\"
    yield f"    -d '{body}'"
    yield ""
    yield f"  export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY={'$NORIA_API_KEY' if keys else 'none'}"
    yield "  from openai import OpenAI"
    yield f'  r = OpenAI().responses.create(model="{settings.chat_model}", input="Hello!")'
    yield "  print(r.output_text)"
    yield ""
    home = "" if settings.home == Path.home() / ".noria" else f" --home {settings.home}"
    yield f'  noria ask "How do I add a model?" --store {DOCS_STORE}{home}'
    yield ""
    yield "  Ctrl-C stops it."
