"""The one thread that writes spans: a bounded queue, and one transaction for all that came within a tenth of a second.

Whoever makes spans in this process never waits: `put` appends to the queue. A process killed outright loses what was in
the queue, which is at most what came within the commit interval while the disk keeps up. Spans of other processes
(`put_all`) are acknowledged when they are stored; those that wait at the same time share a transaction. When the queue
grows, `pressure` says so, and requests are turned away at the door; nothing waits inside.

While the database cannot write, this process's spans are held as long as there is room, and those of others are turned
away: their senders keep them and try again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from noria.errors import Unavailable
from noria.tracing import _batch
from noria.tracing._deletion import Retention, RetentionPolicy
from noria.tracing._metrics import Metrics
from noria.tracing._otlp import with_answer
from noria.tracing._payload import Payload
from noria.tracing._records import SpanRecord, from_sdk
from noria.tracing._refusal import is_refusal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

log = logging.getLogger("noria.tracing")

_Result = TypeVar("_Result")
_SPAN_BYTES = 2048  # what a span weighs in the queue beside its payload, roughly
_RETRY_S = (0.05, 0.2, 0.5, 1.0)  # after the last it is an outage, and tried again at that pace
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


@dataclass(slots=True, eq=False)
class _Request:
    """Spans that somebody waits for. `stored` ends with how many of them the database refused."""

    left: int
    refused: int = 0
    stored: Future[int] = field(default_factory=Future[int])


@dataclass(slots=True)
class _Queued:
    span: ReadableSpan | SpanRecord
    payload: Payload | None
    size: int
    at_s: float
    request: _Request | None = None


@dataclass(slots=True)
class _Group:
    """What goes into one transaction; kept until it is stored."""

    items: list[_Queued]
    records: list[SpanRecord] = field(default_factory=list[SpanRecord])
    failures: int = 0
    due_s: float = 0.0


class SpanWriter:
    """Owns the writing connection of the store."""

    def __init__(self, engine: Engine, options: WriterOptions, metrics: Metrics) -> None:
        self._engine, self._options, self._metrics = engine, options, metrics
        self._queue: deque[_Queued] = deque()
        self._group: _Group | None = None
        self._waiting: set[_Request] = set()
        self._commands: deque[Callable[[], None]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._retention = Retention(options.retention)
        self._flushing = 0
        self._queued = self._done = 0  # spans that came in, spans stored or lost
        self._closing = False
        self._written = self._lost = self._failures = 0
        self._error: str | None = None
        self._logged_at_s = 0.0
        self._retention_at_s = time.monotonic() + min(5.0, options.retention_interval_s)
        metrics.watch_queue(self._depth, self.lag_s)
        self._thread = threading.Thread(target=self._run, name="noria-spans", daemon=True)
        self._thread.start()

    def put(self, span: ReadableSpan | SpanRecord, payload: Payload | None = None) -> bool:
        """Queue a span; False if there was no room for it (then it is counted).

        There is room for twice the queue's size, but for once while nothing can be written: requests would otherwise be
        turned away when the outage is over, until half of the queue is stored.
        """
        size = _SPAN_BYTES + (payload.size if payload is not None else 0)
        with self._changed:
            depth, reason = len(self._queue), "queue_full" if self._error is None else "storage"
            if self._closing or self._fill() >= (2 if self._error is None else 1):
                self._lost += 1
                dropped = True
            else:
                self._queue.append(_Queued(span, payload, size, time.monotonic()))
                self._bytes += size
                self._queued += 1
                dropped = False
                if depth == 0 or depth == self._options.commit_spans:
                    self._changed.notify_all()
        if dropped:
            self._report(reason, 1, "The queue of spans is full.")
        return not dropped

    def put_all(self, records: Sequence[SpanRecord], size: int) -> Future[int]:
        """Queue spans of another process, all or none; the future ends when they are stored, with how many were refused.

        Raises Unavailable when there is no room or nothing can be written, here or from the future: the sender keeps its
        spans and tries again. What was stored all the same is recognised when it comes again.
        """
        each = max(_SPAN_BYTES, size // max(1, len(records)))
        request = _Request(len(records))
        request.stored.set_running_or_notify_cancel()  # whoever stops waiting for it does not cancel it
        with self._changed:
            if self._error is not None and self._group is not None:  # what was given up is tried no more, so the next may be
                raise _unwritable(self._error)
            if self._closing or self._fill() >= 1.0:
                raise _full()
            now = time.monotonic()
            self._queue.extend(_Queued(record, None, each, now, request) for record in records)
            self._bytes += each * len(records)
            self._queued += len(records)
            self._waiting.add(request)
            self._changed.notify_all()
        return request.stored

    def pressure(self) -> float:
        """How full the queue is: from 1.0 on, new requests should be turned away.

        A store that cannot write at all makes no pressure: turning requests away would not help it. Their spans are held
        while there is room, then lost, counted and reported by `health`.
        """
        return 0.0 if self._error is not None else self._fill()

    def _fill(self) -> float:
        return max(len(self._queue) / self._options.queue_spans, self._bytes / self._options.queue_bytes)

    def _depth(self) -> int:
        group = self._group
        return len(self._queue) + (len(group.items) if group is not None else 0)

    def lag_s(self) -> float:
        """Age of the oldest span that is not stored."""
        group = self._group
        try:
            oldest = group.items[0] if group is not None else self._queue[0]
        except IndexError:
            return 0.0
        return max(0.0, time.monotonic() - oldest.at_s)

    def health(self) -> TracingHealth:
        """Figures of this moment."""
        return TracingHealth(self._depth(), self.lag_s(), self._written, self._lost, self._error)

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
        """Wait until all that is queued now is stored (or lost); False if that took too long or nothing can be written."""
        with self._changed:
            target = self._queued
            # A try may be under way. The next begins at once, and if it fails too it is no use to wait.
            hopeless = self._failures + 2

            def over() -> bool:
                away = self._error is not None and self._failures >= hopeless
                return self._done >= target or away or not self._thread.is_alive()

            self._flushing += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(over, timeout_s)
                return self._done >= target
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
                if self._closing and self._depth() == 0 and not self._commands:
                    return
                if self._group is None and self._queue:
                    self._group = self._next_group()
                group = self._group
                commands = [self._commands.popleft() for _ in range(len(self._commands))]
            if group is not None and self._is_due(group):
                self._store(group)
            for command in commands:
                command()
            self._retain()

    def _wait(self) -> None:
        """Return when there is a group to commit, a command, retention to do, or the end."""
        while not self._closing and not self._commands:
            now = time.monotonic()
            if self._group is not None:
                due = now if self._is_due(self._group) else self._group.due_s
            elif self._queue:
                at_once = self._flushing or self._waiting or len(self._queue) >= self._options.commit_spans
                due = now if at_once else self._queue[0].at_s + self._options.commit_interval_s
            else:
                due = self._retention_at_s
            if now >= due:
                return
            self._changed.wait(due - now)

    def _is_due(self, group: _Group) -> bool:
        return self._closing or self._flushing > 0 or time.monotonic() >= group.due_s

    def _next_group(self) -> _Group:
        items = [self._queue.popleft() for _ in range(min(len(self._queue), self._options.commit_spans))]
        self._bytes -= sum(item.size for item in items)
        return _Group(items)

    def _store(self, group: _Group) -> None:
        """Try to write a group. It stays where it is if the database could not."""
        began = time.perf_counter()
        try:
            group.records = group.records or _records(group.items)
            refused = self._write(group.records)
        except SQLAlchemyError as error:  # no room, locked, server away
            self._failed(group, str(getattr(error, "orig", None) or error))
            if self._closing:
                self._lose(group)
        except Exception as error:  # a bug of ours; without this thread every later span would be lost too
            self._failed(group, f"{type(error).__name__}: {error}", lasting=True)
            self._lose(group)
        else:
            self._error = None
            self._metrics.commits.observe(time.perf_counter() - began)
            self._finish(group, refused)

    def _write(self, records: list[SpanRecord]) -> list[SpanRecord]:
        """Write all of these that the database takes, in as many pieces as it needs; those that it does not come back."""
        try:
            written = _batch.write(self._engine, records, capture=self._options.capture_content)
        except Exception as error:
            if not is_refusal(error):
                raise
            if len(records) == 1:
                log.warning("A span could not be stored: %s", error)
                return records
            half = len(records) // 2
            return self._write(records[:half]) + self._write(records[half:])
        self._written += written.stored
        self._metrics.spans_written.inc(written.stored)
        self._metrics.spans_repeated.inc(written.repeated)
        return written.malformed

    def _finish(self, group: _Group, refused: Sequence[SpanRecord]) -> None:
        if refused:
            self._lost += len(refused)
            self._report("malformed", len(refused), "Spans could not be read.")
        strange = {id(record) for record in refused}
        ended: list[_Request] = []
        with self._changed:
            for item in group.items:
                if (request := item.request) is not None:
                    request.left -= 1
                    request.refused += id(item.span) in strange
                    if request.left == 0:
                        ended.append(request)
            self._end(group)
            self._waiting.difference_update(ended)
        for request in ended:
            request.stored.set_result(request.refused)

    def _failed(self, group: _Group, error: str, *, lasting: bool = False) -> None:
        """Note that nothing could be written. If that lasts, senders are told, who will send their spans again."""
        with self._changed:
            group.failures += 1
            self._failures += 1
            group.due_s = time.monotonic() + _RETRY_S[min(group.failures, len(_RETRY_S)) - 1]
            if self._error is None and group.failures < len(_RETRY_S) and not (lasting or self._closing):
                return
            self._error = error
            kept = deque(item for item in self._queue if item.request is None)
            self._queued -= len(self._queue) - len(kept)
            self._queue, self._bytes = kept, sum(item.size for item in kept)
            for item in group.items:
                item.request = None
            waiting, self._waiting = self._waiting, set()
            self._changed.notify_all()
        for request in waiting:
            request.stored.set_exception(_unwritable(error))
        self._say(f"Spans cannot be written: {error}.")

    def _lose(self, group: _Group) -> None:
        """Give a group up, and at the end all that is queued behind it."""
        with self._changed:
            if self._closing:
                group.items += self._queue
                self._queue.clear()
            self._lost += len(group.items)
            self._end(group)
        self._report("storage", len(group.items), f"Spans could not be written: {self._error}.")

    def _end(self, group: _Group) -> None:
        self._group = None
        self._done += len(group.items)
        self._changed.notify_all()

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
        self._say(message)

    def _say(self, message: str) -> None:
        now = time.monotonic()
        if now - self._logged_at_s > _LOG_EVERY_S:
            self._logged_at_s = now
            log.error("%s Lost since the start: %d. Requests are not affected.", message, self._lost)


def _records(items: Sequence[_Queued]) -> list[SpanRecord]:
    records: list[SpanRecord] = []
    for item in items:
        if isinstance(item.span, SpanRecord):
            records.append(item.span)
        else:
            records.append(from_sdk(item.span, item.payload))
            if item.payload is not None and item.payload.spans is not None:
                records += with_answer(item.payload.spans, records[-1])
    return records


def _full() -> Unavailable:
    return Unavailable("Spans arrive faster than they can be stored.", code="tracing_overloaded", retry_after_s=1.0)


def _unwritable(error: str) -> Unavailable:
    return Unavailable(f"Spans cannot be stored: {error}.", code="tracing_unwritable", hint="Keep them and try again.",
                       retry_after_s=2.0)  # fmt: skip
