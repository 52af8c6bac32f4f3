"""Ingestion with the same embedder and the same chunks: Noria's server, a bare floor, LangChain + Chroma, LlamaIndex + Chroma.

Documents are Markdown files of 20 sections, each section one of SQuAD's paragraphs of 110 to 230 words, which Noria's
splitter makes one passage; the other sides are given the same sections as chunks. Every side embeds through the same
/v1/embeddings, 64 texts a call, so that the embedder is one and its cost the same. Noria's time runs from the first
upload to the last file's `completed`, over HTTP, with durable job, database, vector and text index. The floor reads the
files, embeds and writes vectors and texts to SQLite, one transaction a file, and makes no index.

Run: python benchmarks/ingest.py --url http://127.0.0.1:8400/v1 --documents 50 --out result.json   (Noria must be running)
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import search as search_benchmark

PEERS = {
    "langchain": ["langchain-chroma==1.1.0", "langchain-core==1.7.2", "chromadb==1.5.9"],
    "llamaindex": ["llama-index-core==0.14.25", "llama-index-vector-stores-chroma==0.6.0", "chromadb==1.5.9"],
}
SECTIONS = 20
EMBED_BATCH = 64


class Api:
    """As much of OpenAI's API as is needed, with the standard library only: it runs in every side's environment."""

    def __init__(self, url: str, model: str) -> None:
        self.url, self.model = url.rstrip("/"), model
        self._key = os.environ.get("OPENAI_API_KEY", "none")

    def call(self, path: str, body: Any = None, *, content_type: str = "application/json", method: str | None = None) -> Any:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"content-type": content_type, "authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def upload(self, path: Path) -> str:
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n--{boundary}\r\n'
            f'Content-Disposition: form-data; name="file"; filename="{path.name}"\r\nContent-Type: text/markdown\r\n\r\n'
        )
        body = head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        return self.call("/files", body, content_type=f"multipart/form-data; boundary={boundary}")["id"]

    def embed(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = []
        for start in range(0, len(texts), EMBED_BATCH):
            answer = self.call("/embeddings", {"model": self.model, "input": texts[start : start + EMBED_BATCH]})
            vectors.extend(entry["embedding"] for entry in answer["data"])
        return vectors


def sections_of(path: Path) -> list[str]:
    return [part.strip() for part in re.split(r"(?m)^(?=## )", path.read_text()) if part.strip()]


# --- sides: each ingests the folder and returns the number of passages ------------------------------------------------


def side_noria(api: Api, documents: list[Path], folder: Path) -> int:
    store = api.call("/vector_stores", {"name": f"bench-{uuid.uuid4().hex[:8]}"})["id"]
    files = [api.upload(path) for path in documents]
    batch = api.call(f"/vector_stores/{store}/file_batches", {"file_ids": files})
    while batch["status"] == "in_progress":
        time.sleep(0.1)
        batch = api.call(f"/vector_stores/{store}/file_batches/{batch['id']}")
    if batch["file_counts"]["completed"] != len(documents):
        raise SystemExit(f"Noria did not take every file: {batch['file_counts']}")
    api.call(f"/vector_stores/{store}", method="DELETE")
    return SECTIONS * len(documents)


def side_floor(api: Api, documents: list[Path], folder: Path) -> int:
    database = sqlite3.connect(folder / "floor.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE passage (file TEXT, position INTEGER, text TEXT, vector BLOB)")
    count = 0
    for path in documents:
        chunks = sections_of(path)
        vectors = np.array(api.embed(chunks), np.float32)
        rows = [(path.name, number, text, vectors[number].tobytes()) for number, text in enumerate(chunks)]
        with database:
            database.executemany("INSERT INTO passage VALUES (?, ?, ?, ?)", rows)
        count += len(chunks)
    return count


def side_langchain(api: Api, documents: list[Path], folder: Path) -> int:
    from langchain_chroma import Chroma
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings

    class Ours(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return api.embed(texts)

        def embed_query(self, text: str) -> list[float]:
            return api.embed([text])[0]

    store = Chroma("bench", embedding_function=Ours(), persist_directory=str(folder))
    count = 0
    for path in documents:
        chunks = [Document(text, metadata={"source": path.name}) for text in sections_of(path)]
        store.add_documents(chunks)
        count += len(chunks)
    return count


def side_llamaindex(api: Api, documents: list[Path], folder: Path) -> int:
    import chromadb
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.schema import TextNode
    from llama_index.vector_stores.chroma import ChromaVectorStore

    class Ours(BaseEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            return api.embed([text])[0]

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return api.embed(texts)

        def _get_query_embedding(self, query: str) -> list[float]:
            return api.embed([query])[0]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_query_embedding(query)

    collection = chromadb.PersistentClient(str(folder)).create_collection("bench")
    storage = StorageContext.from_defaults(vector_store=ChromaVectorStore(chroma_collection=collection))
    embedder = Ours(embed_batch_size=EMBED_BATCH)
    index = VectorStoreIndex([], storage_context=storage, embed_model=embedder)
    count = 0
    for path in documents:
        nodes = [TextNode(text=text, metadata={"source": path.name}) for text in sections_of(path)]
        index.insert_nodes(nodes)
        count += len(nodes)
    return count


SIDES: dict[str, Callable[[Api, list[Path], Path], int]] = {
    "floor": side_floor,
    "noria": side_noria,
    "langchain": side_langchain,
    "llamaindex": side_llamaindex,
}
PACKAGES = {"langchain": "langchain-chroma", "llamaindex": "llama-index-core", "noria": "noria-llm"}


def measure(name: str, api: Api, documents: list[Path]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        api.embed(["warm"])
        started = time.perf_counter()
        count = SIDES[name](api, documents, Path(folder))
        took_s = time.perf_counter() - started
    version = importlib.metadata.version(PACKAGES[name]) if name in PACKAGES else None
    return {"side": name, "version": version, "passages": count, "seconds": took_s, "passages_per_s": count / took_s}


def write_documents(cache: Path, folder: Path, count: int, round_number: int) -> list[Path]:
    """Every round has files of its own: a side that remembers passages by hash must not gain from the round before."""
    texts, _ = search_benchmark.fetch_paragraphs(cache)
    texts = [" ".join(text.split()) for text in texts if 110 <= len(text.split()) <= 230]
    if len(texts) < count * SECTIONS:
        raise SystemExit(f"There are paragraphs for {len(texts) // SECTIONS} documents only.")
    paths: list[Path] = []
    for number in range(count):
        parts = [
            f"## Section {round_number}-{number}-{section}\n\n{texts[number * SECTIONS + section]}\n"
            for section in range(SECTIONS)
        ]
        path = folder / f"document-{round_number}-{number:04}.md"
        path.write_text("\n".join(parts))
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8400/v1")
    parser.add_argument("--model", default="multilingual-e5-small")
    parser.add_argument("--documents", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", default="floor,noria,langchain,llamaindex")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "noria" / "benchmarks")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    api = Api(arguments.url, arguments.model)
    if arguments.side:
        print(json.dumps(measure(arguments.side, api, sorted(arguments.folder.glob("*.md")))))
        return
    arguments.cache.mkdir(parents=True, exist_ok=True)
    search_benchmark.PEERS.update(PEERS)
    runs: list[dict[str, Any]] = []
    for round_number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            write_documents(arguments.cache, Path(folder), arguments.documents, round_number)
            for name in arguments.sides.split(","):
                python = search_benchmark.peer_python(name, arguments.cache) if name in PEERS else Path(sys.executable)
                command = [str(python), __file__, "--side", name, "--folder", folder, "--url", api.url, "--model", api.model]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                runs.append({"round": round_number, **json.loads(output.splitlines()[-1])})
                print(json.dumps(runs[-1]), file=sys.stderr)
    best = {name: max(run["passages_per_s"] for run in runs if run["side"] == name) for name in arguments.sides.split(",")}
    result = {
        "benchmark": "ingest",
        "embedder": arguments.model,
        "documents": arguments.documents,
        "sections_per_document": SECTIONS,
        "best_passages_per_s": {name: round(value, 2) for name, value in best.items()},
        "of_the_floor": {name: round(value / best["floor"], 3) for name, value in best.items()} if "floor" in best else None,
        "runs": runs,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "platform": platform.platform()},
        "taken_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    text = json.dumps(result, indent=1)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
