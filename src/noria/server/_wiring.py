"""Who gets which: builds one instance from its settings, and takes it down again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from noria.access import CredentialStore, Keys, RateLimiter
from noria.engines import Supervisor, WeightsStore
from noria.errors import ConfigurationError, RateLimited, UpstreamError
from noria.evals import DataJobs, Evals, FeedbackStore, Forgetting, Lineage, Means, ask_hub
from noria.evals.datasets import Datasets
from noria.jobs import Jobs
from noria.knowledge import Knowledge, OpenVectors, embedded_vectors, pgvector_vectors
from noria.models import Call, Catalogue, Hub, ModelCard, call_model
from noria.responses import PromptStore, Responder
from noria.settings import Loaded, Settings
from noria.store import Blobs, Database
from noria.tracing import RetentionPolicy, Tracing, TracingOptions, WriterOptions, configure
from noria.training import Tuning
from noria.wheel import Triggers, Wheels

from ._idempotency import forgetting_answers
from ._merging import Merger
from ._pulling import Importer, Puller
from ._wheel_wiring import make_wheels

__all__ = ["Admission", "Noria", "open_noria"]

_log = logging.getLogger("noria.server")
_EMBED_BATCH = 64


class Slot:
    """One admitted model call; leaving twice is fine."""

    __slots__ = ("_admission", "_held")

    def __init__(self, admission: Admission) -> None:
        self._admission, self._held = admission, True

    def leave(self) -> None:
        if self._held:
            self._held = False
            self._admission.running -= 1


class Admission:
    """Holds back model calls above a number in flight, and while spans cannot be recorded."""

    def __init__(self, most: int, tracing: Tracing) -> None:
        self._most, self._tracing = most, tracing
        self.running = 0

    def enter(self) -> Slot:
        if self.running >= self._most:
            raise RateLimited(
                f"{self._most} model calls are in flight, which is the most this server takes.",
                code="too_many_concurrent_requests",
                hint="Try again shortly; the limit is max_concurrent_requests.",
                retry_after_s=1,
            )
        self._tracing.admit()
        self.running += 1
        return Slot(self)


@dataclass(slots=True)
class Noria:
    """One running instance."""

    loaded: Loaded
    settings: Settings
    database: Database
    blobs: Blobs
    keys: Keys
    limiter: RateLimiter
    credentials: CredentialStore
    supervisor: Supervisor
    weights: WeightsStore
    hub: Hub
    jobs: Jobs
    tracing: Tracing
    admission: Admission
    knowledge: Knowledge
    prompts: PromptStore
    evals: Evals
    feedback: FeedbackStore
    datasets: Datasets
    tuning: Tuning
    wheels: Wheels
    data_jobs: DataJobs
    forgetting: Forgetting
    lineage: Lineage
    responder: Responder
    started_at: float = field(default_factory=time.time)

    async def model_state(self, card: ModelCard, project_id: str) -> str:
        """`loaded`, `ready`, `missing_weights` or `missing_key`."""
        if card.source == "route":
            return "ready"
        if card.source == "engine":
            return await self.hub.state(card, project_id)
        return "ready" if await self.hub.has_key(card, project_id) else "missing_key"


@contextlib.asynccontextmanager
async def open_noria(loaded: Loaded) -> AsyncGenerator[Noria, None]:
    """Opens everything in order and closes it in reverse. Raises ConfigurationError when it cannot start."""
    settings, begun = loaded.settings, time.time()
    _make_private(settings.home)
    settings.models_dir.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.open(settings.database)
        stack.push_async_callback(database.aclose)
        tracing = await asyncio.to_thread(configure, _tracing_options(settings))
        stack.push_async_callback(asyncio.to_thread, tracing.close)
        supervisor = Supervisor(settings.run_dir, memory_budget_mb=settings.engine_memory_mb)
        stack.push_async_callback(supervisor.aclose)
        secret = settings.secret_key.get_secret_value() if settings.secret_key else None
        credentials = CredentialStore(database, settings.home, secret)
        defaults = {"chat": settings.chat_model, "embedding": settings.embedding_model}
        catalogue = Catalogue(database, aliases=settings.aliases, defaults=defaults)
        weights = WeightsStore(settings.models_dir)
        hub = Hub(settings, catalogue, supervisor, weights, credentials)
        stack.push_async_callback(hub.aclose)
        jobs = Jobs(database, settings.home)
        jobs.register("pull", Puller(hub).run)
        jobs.register("import", Importer(hub).run)
        jobs.register("merge", Merger(hub, settings.home / "exports").run)
        blobs = Blobs(settings.blobs)
        embedder = HubEmbedder(hub, settings.embedding_model)
        knowledge = await stack.enter_async_context(
            Knowledge.opened(
                database, blobs, jobs, embedder, settings.home / "indexes", open_vectors=_vector_index(settings, database)
            )
        )
        prompts = PromptStore(database)
        admission = Admission(settings.max_concurrent_requests, tracing)
        ask = ask_hub(hub, timeout_s=settings.request_timeout_s, enter=admission.enter)
        means = Means(ask, embedder.embed_texts, hub.resolve, settings.eval_concurrency, prompts)
        evals = Evals(database, blobs, jobs, means)
        tuning = Tuning(database, blobs, jobs, hub, settings)
        gate = asyncio.Lock()  # between what is made of traces and what deletes them
        feedback = FeedbackStore(database, tracing.store, tracing.flush, gate)
        datasets = Datasets(database, blobs, tracing.store, gate)
        data_jobs = DataJobs(database, blobs, jobs, datasets, feedback)
        forgetting = Forgetting(database, jobs, datasets.eraser, tracing.store, tracing.flush, gate)
        wheels = make_wheels(database, jobs, tracing, (hub, datasets, evals, tuning))
        await datasets.sweep()
        await stack.enter_async_context(jobs.started())
        await blobs.sweep(begun)
        await knowledge.resume()
        await evals.resume()
        await tuning.take_up()
        await wheels.resume()
        stack.enter_context(_running(Triggers(wheels).run()))
        stack.enter_context(_running(forgetting_answers(database)))
        noria = Noria(
            loaded=loaded,
            settings=settings,
            database=database,
            blobs=blobs,
            keys=Keys(database, default_rpm=settings.requests_per_minute),
            limiter=RateLimiter(),
            credentials=credentials,
            supervisor=supervisor,
            weights=weights,
            hub=hub,
            jobs=jobs,
            tracing=tracing,
            admission=admission,
            knowledge=knowledge,
            prompts=prompts,
            evals=evals,
            feedback=feedback,
            datasets=datasets,
            tuning=tuning,
            wheels=wheels,
            data_jobs=data_jobs,
            forgetting=forgetting,
            lineage=Lineage(database, tracing.store),
            responder=Responder(database, hub, knowledge, prompts, timeout_s=settings.request_timeout_s),
        )
        if not settings.loopback and not await noria.keys.exist():
            _log.warning("No API key exists yet: only this machine is served. Create one with: noria keys create")
        yield noria


@contextlib.contextmanager
def _running(work: Coroutine[Any, Any, None]) -> Generator[None, None, None]:
    """Something that goes on beside the server and ends with it."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()


def _make_private(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)


def _vector_index(settings: Settings, database: Database) -> OpenVectors:
    if settings.vector_index == "embedded":
        return embedded_vectors
    if database.is_sqlite:
        raise ConfigurationError(
            "vector_index = pgvector needs a PostgreSQL in database_url.", param="vector_index", hint="Or leave it `embedded`."
        )
    return pgvector_vectors(settings.database)


def _tracing_options(settings: Settings) -> TracingOptions:
    url = settings.database if settings.database_url is not None else f"sqlite:///{settings.home / 'traces.db'}"
    writer = WriterOptions(
        capture_content=settings.trace_content,
        retention=RetentionPolicy(max_age_s=settings.trace_retention_days * 86400, max_bytes=settings.trace_max_mb * 1024 * 1024),
    )
    return TracingOptions(url=url, writer=writer)


class HubEmbedder:
    """The knowledge folder's embedder over a model of the hub."""

    def __init__(self, hub: Hub, model: str) -> None:
        self._hub, self.model = hub, model

    async def dimensions(self, model: str) -> int:
        card = (await self._hub.resolve(model)).card
        return card.dimensions or int((await self.embed(["dimensions"], model=model, kind="query")).shape[1])

    async def embed_texts(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Vectors of texts to be compared with each other."""
        return await self.embed(list(texts), model=self.model, kind="query")

    async def embed(self, texts: list[str], *, model: str, kind: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Vectors `[len(texts), dimensions]`, in order. `kind` is `query` or `passage`."""
        resolved = await self._hub.resolve(model)
        parts = [
            await self._batch(resolved, texts[start : start + _EMBED_BATCH], kind) for start in range(0, len(texts), _EMBED_BATCH)
        ]
        return np.concatenate(parts)

    async def _batch(self, resolved: Any, texts: list[str], kind: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        body: dict[str, Any] = {"model": resolved.card.id, "input": texts, "encoding_format": "base64"}
        if resolved.card.query_prefix:
            body |= {"input_type": kind, "truncate": True}
        reply, _ = await call_model(resolved, Call("embedding", body))
        raw = await reply.read()
        try:
            data = sorted(orjson.loads(raw)["data"], key=lambda entry: entry["index"])
            vectors = np.stack([_vector(entry["embedding"]) for entry in data])
        except (ValueError, KeyError, TypeError):
            raise UpstreamError(f"{resolved.card.id} answered with something that is not a list of vectors.") from None
        if len(vectors) != len(texts) or vectors.ndim != 2:
            raise UpstreamError(f"{resolved.card.id} gave {len(vectors)} vectors for {len(texts)} texts.")
        return vectors

    async def count_tokens(self, model: str) -> Any:
        """A function that counts tokens as the embedder does, or None where its tokenizer is not on this machine."""
        card = (await self._hub.resolve(model)).card
        folder = self._hub.weights.find(card.weights) if card.weights else None
        path = folder / "tokenizer.json" if folder else None
        if path is None or not path.exists():
            return None
        from tokenizers import Tokenizer

        tokenizer = await asyncio.to_thread(Tokenizer.from_file, str(path))
        tokenizer.no_truncation()
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _vector(value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), dtype="<f4")
    return np.asarray(value, dtype=np.float32)
