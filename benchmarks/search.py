"""Search at 100,000 passages beside Chroma and LanceDB, in one run: latency and recall with all, 10 % and 1 % of the files.

Texts are SQuAD's and SQuAD-shifts' paragraphs (from the sdist bigbench 1.0.0, fetched by pip and checked by hash), embedded
once through an OpenAI-compatible endpoint and kept in --cache. Beyond the real ones, vectors are perturbed copies (cosine
about 0.96 to the original) and texts are made of other paragraphs' sentences; the result says how many. Recall is against
exact search over the same vectors; the query's embedding is not part of any time. Chroma has no BM25, so that its
figures are for vectors only; LanceDB's and ours are for vectors alone and for both fused.

Run: python benchmarks/search.py --embeddings-url http://127.0.0.1:8400/v1 --out result.json
     python benchmarks/search.py --synthetic --passages 2000 --queries 20      (a smoke run: random vectors, said so)
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.metadata
import json
import os
import platform
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BIGBENCH_SHA256 = "1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2"
PARTS = ("squaddev_v1.1.json", "nyt_v1.0.json", "new_wiki_v1.0.json", "reddit_v1.0.json", "amazon_reviews_v1.0.json")
PEERS = {"chroma": ["chromadb==1.5.9", "numpy"], "lancedb": ["lancedb==0.40.0", "pyarrow", "numpy"]}
MAX_REAL_PASSAGES = 20_000
PASSAGES_PER_FILE = 10
NOISE = 0.3  # length of what is added to a unit vector that is copied
K = 10
FILTERS = {"all": 1, "10%": 10, "1%": 100}  # one file in so many
BATCH = 2_000


# --- data -------------------------------------------------------------------------------------------------------------


def fetch_paragraphs(cache: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """Distinct paragraphs, and (question, number of its paragraph) of SQuAD's own part, shuffled once."""
    archive = cache / "bigbench-1.0.0.tar.gz"
    if not archive.exists():
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "-d", str(cache), "bigbench==1.0.0"], check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != BIGBENCH_SHA256:
        raise SystemExit(f"{archive} has another hash: {digest}")
    paragraphs: dict[str, int] = {}
    questions: list[tuple[str, int]] = []
    with tarfile.open(archive) as opened:
        members = {Path(member.name).name: member for member in opened if "/squad_shifts/" in member.name}
        for part in PARTS:
            content = opened.extractfile(members[part])
            assert content is not None
            for article in json.load(content)["data"]:
                for paragraph in article["paragraphs"]:
                    number = paragraphs.setdefault(paragraph["context"], len(paragraphs))
                    if part == PARTS[0]:
                        questions.extend((entry["question"], number) for entry in paragraph["qas"])
    random.Random(0).shuffle(questions)
    return list(paragraphs)[:MAX_REAL_PASSAGES], questions


def embed(url: str, model: str, texts: Sequence[str]) -> np.ndarray:
    """Vectors from an OpenAI-compatible endpoint, 64 texts a call, longest first so that batches are even."""
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
    rows: dict[int, list[float]] = {}
    for start in range(0, len(order), 64):
        numbers = order[start : start + 64]
        # `truncate` is Noria's: a few paragraphs are longer than the model reads.
        body = json.dumps({"model": model, "truncate": True, "input": [texts[number] for number in numbers]}).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
        request = urllib.request.Request(f"{url.rstrip('/')}/embeddings", body, headers)
        with urllib.request.urlopen(request) as response:
            for entry in json.load(response)["data"]:
                rows[numbers[entry["index"]]] = entry["embedding"]
    return np.array([rows[number] for number in range(len(texts))], np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def prepare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Writes what every side reads: texts, vectors, queries. Returns what the result must say of them."""
    generator = np.random.default_rng(0)
    if arguments.synthetic:
        words = [f"word{number}" for number in range(5_000)]
        chooser = random.Random(0)
        texts = [" ".join(chooser.choices(words, k=80)) for _ in range(min(500, arguments.passages))]
        questions = [(" ".join(texts[number].split()[:6]), number) for number in range(min(arguments.queries, len(texts)))]
        vectors = unit(generator.normal(size=(len(texts), 384)) + 1.0)
        query_vectors = unit(vectors[[number for _, number in questions]] + generator.normal(size=(len(questions), 384)) / 40)
    else:
        texts, questions = fetch_paragraphs(arguments.cache)
        texts = texts[: arguments.passages]
        questions = [question for question in questions if question[1] < len(texts)][: arguments.queries]
        kept = arguments.cache / f"search-{arguments.model.replace('/', '_')}-{len(texts)}-{len(questions)}.npz"
        if not kept.exists():
            vectors = embed(arguments.embeddings_url, arguments.model, [arguments.passage_prefix + text for text in texts])
            asked = embed(arguments.embeddings_url, arguments.model, [arguments.query_prefix + text for text, _ in questions])
            np.savez(kept, vectors=vectors, queries=asked)
        stored = np.load(kept)
        vectors, query_vectors = unit(stored["vectors"]), unit(stored["queries"])
    real = len(texts)
    missing = arguments.passages - real
    if missing > 0:
        sentences = [sentence for text in texts for sentence in re.split(r"(?<=[.!?]) ", text) if sentence]
        chooser = random.Random(1)
        texts = texts + [" ".join(chooser.sample(sentences, min(5, len(sentences)))) for _ in range(missing)]
        dimensions = vectors.shape[1]
        copies = vectors[generator.integers(0, real, missing)]
        copies = copies + generator.normal(size=copies.shape) * NOISE / np.sqrt(dimensions)
        vectors = np.concatenate([vectors, unit(copies)])
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", query_vectors)
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "questions.json").write_text(json.dumps(questions))
    return {
        "passages": len(texts),
        "real_passages": real,
        "perturbed_copies": max(0, missing),
        "dimensions": int(vectors.shape[1]),
        "queries": len(questions),
        "embedder": "none: random vectors" if arguments.synthetic else arguments.model,
    }


@dataclass(frozen=True)
class Data:
    texts: list[str]
    vectors: np.ndarray
    questions: list[tuple[str, int]]
    queries: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> Data:
        questions = [(text, number) for text, number in json.loads((folder / "questions.json").read_text())]
        texts = json.loads((folder / "texts.json").read_text())
        return cls(texts, np.load(folder / "vectors.npy"), questions, np.load(folder / "queries.npy"))

    @property
    def files(self) -> np.ndarray:
        return np.arange(len(self.texts)) // PASSAGES_PER_FILE

    def exact(self, one_in: int) -> list[set[int]]:
        allowed = np.flatnonzero(self.files % one_in == 0)
        scores = self.queries @ self.vectors[allowed].T
        return [set(allowed[np.argsort(-row)[:K]].tolist()) for row in scores]


# --- sides ------------------------------------------------------------------------------------------------------------

Search = Callable[[int, int], Sequence[int]]  # (query number, one file in so many) -> passage numbers


def side_noria(data: Data, folder: Path) -> dict[str, Search]:
    from noria.knowledge import FileAttributes, HybridSearch, Query, parse_filter
    from noria.knowledge.index import FaissVectorIndex, TantivyTextIndex

    vectors = FaissVectorIndex.open(folder / "vectors", data.vectors.shape[1])
    texts = TantivyTextIndex(folder / "texts")
    attributes = FileAttributes()
    for ordinal in range(int(data.files[-1]) + 1):
        attributes.set(ordinal, {f"of{one_in}": ordinal % one_in for one_in in FILTERS.values()})
    for start in range(0, len(data.texts), BATCH):
        rows = slice(start, start + BATCH)
        ids = np.arange(len(data.texts))[rows]
        vectors.add(ids, data.files[rows], data.vectors[rows])
        texts.add(ids, data.files[rows], data.texts[rows])
    vectors.save()
    hybrid = HybridSearch(vectors, texts)
    loop = asyncio.new_event_loop()

    @dataclass(frozen=True)
    class Row:
        text: str
        context: str = ""

    async def fetch(ids: Sequence[int]) -> Mapping[int, Row]:
        return {number: Row(data.texts[number]) for number in ids}

    def allowed(one_in: int, query: int) -> Any:
        # A filter nobody asked before: the cache must not answer.
        body = {"type": "and", "filters": [{"type": "eq", "key": f"of{one_in}", "value": 0},
                                           {"type": "ne", "key": "query", "value": query}]}  # fmt: skip
        return None if one_in == 1 else attributes.allowed(parse_filter(body))

    def by_vector(query: int, one_in: int) -> Sequence[int]:
        return vectors.search(data.queries[query], K, allowed(one_in, query)).ids.tolist()

    def by_both(query: int, one_in: int) -> Sequence[int]:
        asked = Query(data.questions[query][0], data.queries[query], K, allowed(one_in, query))
        return [hit.id for hit in loop.run_until_complete(hybrid.search(asked, fetch))]

    return {"vector": by_vector, "hybrid": by_both}


def side_chroma(data: Data, folder: Path) -> dict[str, Search]:
    import chromadb

    collection = chromadb.PersistentClient(str(folder)).create_collection("bench", configuration={"hnsw": {"space": "ip"}})
    for start in range(0, len(data.texts), BATCH):
        rows = range(start, min(start + BATCH, len(data.texts)))
        metadata = [{f"of{one_in}": int(data.files[row]) % one_in for one_in in FILTERS.values()} for row in rows]
        collection.add(
            ids=[str(row) for row in rows],
            embeddings=data.vectors[rows.start : rows.stop],
            documents=data.texts[rows.start : rows.stop],
            metadatas=metadata,
        )

    def by_vector(query: int, one_in: int) -> Sequence[int]:
        where = None if one_in == 1 else {f"of{one_in}": 0}
        found = collection.query(query_embeddings=[data.queries[query]], n_results=K, where=where, include=["documents"])
        return [int(identifier) for identifier in found["ids"][0]]

    return {"vector": by_vector}


def side_lancedb(data: Data, folder: Path) -> dict[str, Search]:
    import lancedb
    import pyarrow as pa

    columns: dict[str, Any] = {
        "id": pa.array(range(len(data.texts)), pa.int64()),
        "text": data.texts,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(data.vectors.reshape(-1)), data.vectors.shape[1]),
    }
    columns |= {f"of{one_in}": pa.array(data.files % one_in) for one_in in FILTERS.values()}
    table = lancedb.connect(str(folder)).create_table("bench", pa.table(columns))
    if len(data.texts) >= 5_000:
        table.create_index(metric="dot", index_type="IVF_HNSW_SQ")
    table.create_fts_index("text")
    for one_in in FILTERS.values():
        table.create_scalar_index(f"of{one_in}", index_type="BITMAP")

    def narrowed(builder: Any, one_in: int) -> Sequence[int]:
        if one_in > 1:
            builder = builder.where(f"of{one_in} = 0", prefilter=True)
        return builder.limit(K).to_arrow()["id"].to_pylist()

    def by_vector(query: int, one_in: int) -> Sequence[int]:
        return narrowed(table.search(data.queries[query]).distance_type("dot"), one_in)

    def by_both(query: int, one_in: int) -> Sequence[int]:
        words = re.sub(r"[^\w ]", " ", data.questions[query][0])
        return narrowed(table.search(query_type="hybrid").vector(data.queries[query]).text(words), one_in)

    return {"vector": by_vector, "hybrid": by_both}


SIDES: dict[str, Callable[[Data, Path], dict[str, Search]]] = {
    "noria": side_noria,
    "chroma": side_chroma,
    "lancedb": side_lancedb,
}


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(name: str, data: Data, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        searches = SIDES[name](data, Path(folder))
        built_s = time.perf_counter() - started
        result: dict[str, Any] = {"side": name, "build_s": round(built_s, 1)}
        for kind, search in searches.items():
            for label, one_in in FILTERS.items():
                result[f"{kind} {label}"] = _measured(search, data, one_in, rounds, recall=kind == "vector")
        packages = {"noria": "noria-llm", "chroma": "chromadb", "lancedb": "lancedb"}
        result["version"] = importlib.metadata.version(packages[name])
        return result


def _measured(search: Search, data: Data, one_in: int, rounds: int, *, recall: bool) -> dict[str, float]:
    count = len(data.questions)
    for query in range(min(10, count)):
        search(query, one_in)
    times: list[float] = []
    answers: list[Sequence[int]] = []
    for _ in range(rounds):
        answers = []
        for query in range(count):
            started = time.perf_counter()
            answers.append(search(query, one_in))
            times.append(time.perf_counter() - started)
    figures = {"p50_ms": float(np.quantile(times, 0.5)) * 1e3, "p95_ms": float(np.quantile(times, 0.95)) * 1e3}
    if recall:
        exact = data.exact(one_in)
        found = sum(len(want & set(got)) for want, got in zip(exact, answers, strict=True))
        figures["recall_at_10"] = found / max(1, sum(len(want) for want in exact))
    elif one_in == 1:
        hits = sum(number in answer for (_, number), answer in zip(data.questions, answers, strict=True))
        figures["success_at_10"] = hits / count
    return {key: round(value, 4) for key, value in figures.items()}


def peer_python(name: str, cache: Path) -> Path:
    folder = cache / f"venv-{name}"
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PEERS[name]], check=True)
        # Bytecode may be forbidden by the environment; a peer must not compile itself on each start.
        subprocess.run([str(python), "-m", "compileall", "-q", str(folder / "lib")], check=False)
        (folder / ".ready").touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sides", default="noria,chroma,lancedb")
    parser.add_argument("--embeddings-url", default="http://127.0.0.1:8400/v1")
    parser.add_argument("--model", default="multilingual-e5-small")
    parser.add_argument(
        "--passage-prefix", default="", help="what the embedder wants before a passage, if its server adds nothing"
    )
    parser.add_argument("--query-prefix", default="", help="the same for questions")
    parser.add_argument("--synthetic", action="store_true", help="random vectors and words: a smoke run, no measurement")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "noria" / "benchmarks")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)  # one side, in its own process
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure(arguments.side, Data.read(arguments.data), arguments.rounds)))
        return
    arguments.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {"benchmark": "search", "data": prepare(arguments, Path(folder)), "sides": []}
        for name in arguments.sides.split(","):
            python = Path(sys.executable) if name == "noria" else peer_python(name, arguments.cache)
            command = [str(python), __file__, "--side", name, "--data", folder, "--rounds", str(arguments.rounds)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            result["sides"].append(json.loads(output.splitlines()[-1]))
            print(json.dumps(result["sides"][-1], indent=1), file=sys.stderr)
    result["machine"] = {"cpus": os.cpu_count(), "python": platform.python_version(), "platform": platform.platform()}
    result["taken_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = json.dumps(result, indent=1)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
