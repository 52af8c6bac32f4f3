"""The one thread that writes spans: a bounded queue, and one transaction for all that came within a tenth of a second.

Whoever makes spans never waits: `put` appends to the queue. A process killed outright loses what was in the queue, which
is at most what came within the commit interval while the disk keeps up. When the queue grows, `pressure` says so, and
requests are turned away at the door; nothing waits inside.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from noria.errors import Unavailable
from noria.tracing import _batch
from noria.tracing._deletion import Retention, RetentionPolicy
from noria.tracing._metrics import Metrics
from noria.tracing._otlp import with_answer
from noria.tracing._payload import Payload
from noria.tracing._records import SpanRecord, from_sdk

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

log = logging.getLogger("noria.tracing")

_Result = TypeVar("_Result")
_SPAN_BYTES = 2048  # what a span weighs in the queue beside its payload, roughly
_RETRY_S = (0.05, 0.2, 0.5)
_LOG_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """Limits of the queue and the rhythm of commits."""

    commit_interval_s: float = 0.1
    commit_spans: int = 500
    queue_spans: int = 20_000
    queue_bytes: int = 64 * 2**20
    capture_content: bool = True
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    retention_interval_s: float = 60.0


@dataclass(frozen=True, slots=True)
class TracingHealth:
    """How the store of spans is. `error` is why the last group could not be written, None if it could."""

    queued: int
    lag_s: float
    written: int
    lost: int
    error: str | None


@dataclass(slots=True)
class _Queued:
    span: ReadableSpan | SpanRecord
    payload: Payload | None
    size: int
    at_s: float


class SpanWriter:
    """Owns the writing connection of the store."""

    def __init__(self, engine: Engine, options: WriterOptions, metrics: Metrics) -> None:
        self._engine, self._options, self._metrics = engine, options, metrics
        self._queue: deque[_Queued] = deque()
        self._commands: deque[Callable[[], None]] = deque()
        self._bytes = 0
        self._busy: list[_Queued] = []
        self._changed = threading.Condition()
        self._retention = Retention(options.retention)
        self._flushing = 0
        self._queued = self._done = 0  # spans that came in, spans stored or lost
        self._closing = False
        self._written = self._lost = 0
        self._error: str | None = None
        self._logged_at_s = 0.0
        self._retention_at_s = time.monotonic() + min(5.0, options.retention_interval_s)
        metrics.watch_queue(lambda: len(self._queue) + len(self._busy), self.lag_s)
        self._thread = threading.Thread(target=self._run, name="noria-spans", daemon=True)
        self._thread.start()

    def put(self, span: ReadableSpan | SpanRecord, payload: Payload | None = None) -> bool:
        """Queue a span; False if it had to be dropped because the queue is at twice its size (then it is counted)."""
        size = _SPAN_BYTES + (payload.size if payload is not None else 0)
        options = self._options
        with self._changed:
            depth = len(self._queue)
            if depth >= 2 * options.queue_spans or self._bytes > 2 * options.queue_bytes or self._closing:
                self._lost += 1
                dropped = True
            else:
                self._queue.append(_Queued(span, payload, size, time.monotonic()))
                self._bytes += size
                self._queued += 1
                dropped = False
                if depth == 0 or depth == options.commit_spans:
                    self._changed.notify_all()
        if dropped:
            self._report("queue_full", 1, "The queue of spans is full.")
        return not dropped

    def put_all(self, records: list[SpanRecord], size: int, *, wait_s: float) -> None:
        """Queue spans of another process, all or none; waits for room, for the caller's thread is not the event loop.

        Raises Unavailable when there is no room in time: the sender keeps its spans and tries again.
        """
        deadline = time.monotonic() + wait_s
        each = max(_SPAN_BYTES, size // max(1, len(records)))
        with self._changed:
            while self._fill() >= 1.0 and not self._closing:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise _full()
                self._changed.wait(left)
            if self._closing:
                raise _full()
            now = time.monotonic()
            self._queue.extend(_Queued(record, None, each, now) for record in records)
            self._bytes += each * len(records)
            self._queued += len(records)
            self._changed.notify_all()

    def pressure(self) -> float:
        """How full the queue is: from 1.0 on, new requests should be turned away.

        A store that cannot write at all makes no pressure: turning requests away would not help it. Its spans are
        lost, counted and reported by `health`.
        """
        return 0.0 if self._error is not None else self._fill()

    def _fill(self) -> float:
        return max(len(self._queue) / self._options.queue_spans, self._bytes / self._options.queue_bytes)

    def lag_s(self) -> float:
        """Age of the oldest span that is not stored."""
        oldest = self._busy[:1] or list(self._peek())
        return max(0.0, time.monotonic() - oldest[0].at_s) if oldest else 0.0

    def _peek(self) -> Iterable[_Queued]:
        try:
            yield self._queue[0]
        except IndexError:
            return

    def health(self) -> TracingHealth:
        """Figures of this moment."""
        return TracingHealth(len(self._queue) + len(self._busy), self.lag_s(), self._written, self._lost, self._error)

    def submit(self, action: Callable[[Engine], _Result]) -> Future[_Result]:
        """Run something on the writing connection, between two groups of spans."""
        future: Future[_Result] = Future()

        def command() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(action(self._engine))
            except BaseException as error:  # it is raised where the result is awaited
                future.set_exception(error)

        with self._changed:
            if self._closing:
                raise _full()
            self._commands.append(command)
            self._changed.notify_all()
        return future

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all that is queued now is stored (or lost); False if that took too long."""
        with self._changed:
            target = self._queued
            self._flushing += 1
            self._changed.notify_all()
            try:
                return (
                    self._changed.wait_for(lambda: self._done >= target or not self._thread.is_alive(), timeout_s)
                    and self._done >= target
                )
            finally:
                self._flushing -= 1

    def close(self, timeout_s: float = 10.0) -> None:
        """Store what is queued and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._wait()
                if self._closing and not self._queue and not self._commands:
                    return
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._options.commit_spans))]
                self._bytes -= sum(item.size for item in batch)
                self._busy = batch
                commands = [self._commands.popleft() for _ in range(len(self._commands))]
            try:
                if batch:
                    self._store(batch)
            except Exception as error:  # a bug of ours; without this thread every later span would be lost too
                self._lost += len(batch)
                self._error = f"{type(error).__name__}: {error}"
                self._report("storage", len(batch), f"Spans could not be written: {self._error}")
            with self._changed:
                self._busy = []
                self._done += len(batch)
                self._changed.notify_all()
            for command in commands:
                command()
            self._retain()

    def _wait(self) -> None:
        """Return when there is a group to commit, a command, retention to do, or the end."""
        while not self._closing and not self._commands:
            now = time.monotonic()
            if self._queue:
                due = self._queue[0].at_s + self._options.commit_interval_s
                if self._flushing or len(self._queue) >= self._options.commit_spans or now >= due:
                    return
                self._changed.wait(due - now)
            elif now >= self._retention_at_s:
                return
            else:
                self._changed.wait(self._retention_at_s - now)

    def _store(self, batch: list[_Queued]) -> None:
        records: list[SpanRecord] = []
        for item in batch:
            if isinstance(item.span, SpanRecord):
                records.append(item.span)
            else:
                records.append(from_sdk(item.span, item.payload))
                if item.payload is not None and item.payload.spans is not None:
                    records += with_answer(item.payload.spans, records[-1])
        began = time.perf_counter()
        self._write(records)
        self._metrics.commits.observe(time.perf_counter() - began)

    def _write(self, records: list[SpanRecord]) -> None:
        """Write, again after a while if the database could not, without the span in question if it would not."""
        waits = iter(_RETRY_S if self._error is None else ())
        while True:
            try:
                written = _batch.write(self._engine, records, capture=self._options.capture_content)
            except OperationalError as error:  # no room, locked, server away
                wait_s = next(waits, None)
                if wait_s is None:
                    self._error = str(error.orig)
                    self._lost += len(records)
                    self._report("storage", len(records), f"Spans could not be written: {self._error}")
                    return
                time.sleep(wait_s)
            except (SQLAlchemyError, ValueError, OverflowError) as error:
                if len(records) > 1:
                    half = len(records) // 2
                    self._write(records[:half])
                    self._write(records[half:])
                    return
                self._lost += 1
                self._report("malformed", 1, f"A span could not be stored: {error}")
                return
            else:
                self._error = None
                self._written += written.stored
                self._metrics.spans_written.inc(written.stored)
                self._metrics.spans_repeated.inc(written.repeated)
                if written.malformed:
                    self._lost += written.malformed
                    self._report("malformed", written.malformed, "Spans could not be read.")
                return

    def _retain(self) -> None:
        if self._closing or time.monotonic() < self._retention_at_s:
            return
        more = False
        before = self._retention.deleted
        if not self._retention.unlimited:
            try:
                more = self._retention.step(self._engine)
            except Exception as error:  # the database, or its driver underneath SQLAlchemy; tried again later
                log.warning("Old traces could not be deleted: %s", error)
            self._metrics.traces_deleted.labels("retention").inc(self._retention.deleted - before)
        # While there is more to delete, take turns with the spans that arrive.
        self._retention_at_s = time.monotonic() + (0.01 if more else self._options.retention_interval_s)

    def _report(self, reason: str, count: int, message: str) -> None:
        self._metrics.spans_lost.labels(reason).inc(count)
        now = time.monotonic()
        if now - self._logged_at_s > _LOG_EVERY_S:
            self._logged_at_s = now
            log.error("%s Lost since the start: %d. Requests are not affected.", message, self._lost)


def _full() -> Unavailable:
    return Unavailable("Spans arrive faster than they can be stored.", code="tracing_overloaded", retry_after_s=1.0)
