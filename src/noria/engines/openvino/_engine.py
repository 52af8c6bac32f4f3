"""The engine's one thread: takes requests in, runs steps, hands tokens out.

Knows nothing about text or HTTP. All scheduler state belongs to this thread; others talk to it through an inbox. After
each step one call hands all new tokens of all sequences to the listener, so that the event loop wakes once a step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from noria.engines.openvino._blocks import BlockPool
from noria.engines.openvino._runner import PagedModel, Slice
from noria.engines.openvino._sampler import Sampled, logprobs_of, note_tokens, sample
from noria.engines.openvino._scheduler import Limits, Scheduled, Scheduler
from noria.engines.openvino._sequence import FinishReason, Sequence, TokenLogprobs, Work

__all__ = ["Engine", "EngineStats", "Event", "Work"]

Array = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """What one step did for one sequence. `finish` is set in its last event."""

    sequence: Sequence
    sampled: tuple[Sampled, ...] = ()
    prompt_from: int = 0  # the prompt token that `prompt_logprobs` begin with; repeated after a pre-emption
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    finish: FinishReason | None = None


@dataclass(frozen=True)
class EngineStats:
    running: int
    waiting: int
    free_blocks: int
    num_blocks: int
    block_size: int
    steps: int
    preemptions: int


@dataclass
class _Inbox:
    added: list[Sequence] = field(default_factory=list[Sequence])
    cancelled: list[Sequence] = field(default_factory=list[Sequence])
    stopping: bool = False


class Engine:
    """`listener` is called from the engine's thread with the events of one step."""

    def __init__(
        self, model: PagedModel, limits: Limits, end_tokens: frozenset[int], listener: Callable[[list[Event]], None]
    ) -> None:
        self._model = model
        self._end_tokens = end_tokens
        self._listener = listener
        self.scheduler = Scheduler(BlockPool(model.num_blocks), limits)
        self._inbox = _Inbox()
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="noria-engine", daemon=True)
        self._steps = 0
        self._planned = 0  # sequences of all steps, added up
        self._preemptions = 0
        self.failure: str | None = None

    # Called from any thread -------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._wake:
            self._inbox.stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, sequences: list[Sequence]) -> None:
        """Raises ContextTooLong when one cannot fit; then none is taken."""
        for sequence in sequences:
            self.scheduler.refuse_if_too_long(sequence.num_prompt, sequence.sampling.max_tokens)
        with self._wake:
            self._inbox.added += sequences
            self._wake.notify()

    def cancel(self, sequences: list[Sequence]) -> None:
        """Frees their slots before the next step. No further event comes for them."""
        with self._wake:
            self._inbox.cancelled += sequences
            self._wake.notify()

    def stats(self) -> EngineStats:
        scheduler = self.scheduler
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + len(self._inbox.added),
            free_blocks=scheduler.pool.num_free,
            num_blocks=scheduler.pool.num_blocks,
            block_size=scheduler.limits.block_size,
            steps=self._steps,
            preemptions=self._preemptions,
        )

    def work(self) -> Work:
        """What has been done until now; the difference of two tells of the steps between."""
        return Work(self._steps, self._planned)

    # The engine's thread ----------------------------------------------------------------------------------------

    def _loop(self) -> None:
        try:
            while self._take_inbox():
                events = self.step()
                if events:
                    self._listener(events)
        except Exception as error:
            _log.exception("the engine stopped")
            self.failure = f"{type(error).__name__}: {error}"
            living = [*self.scheduler.running, *self.scheduler.waiting, *self._inbox.added]
            self._listener([Event(sequence, finish="error") for sequence in living])

    def _take_inbox(self) -> bool:
        """Waits for work when there is none; False when told to stop."""
        scheduler = self.scheduler
        with self._wake:
            while not (self._inbox.added or self._inbox.cancelled or scheduler.running or scheduler.waiting):
                if self._inbox.stopping:
                    return False
                scheduler.check()
                self._wake.wait()
            if self._inbox.stopping:
                return False
            inbox, self._inbox = self._inbox, _Inbox()
        for sequence in inbox.added:
            scheduler.add(sequence)
        for sequence in inbox.cancelled:
            scheduler.finish(sequence, "cancelled")
        return True

    def step(self) -> list[Event]:
        """Plans, computes and samples once."""
        planned = self.scheduler.plan()
        if not planned:
            return []
        self._steps += 1
        self._planned += len(planned)
        logits = self._model.run([_slice(item) for item in planned])
        rows: dict[int, Array] = {}  # of the sequences that are sampled: a row for the next token and one for each guess
        prompt: dict[int, tuple[TokenLogprobs, ...]] = {}
        starts: dict[int, int] = {}
        row = 0
        for item in planned:
            count = item.count - _logits_from(item)
            if item.sequence.wants_prompt_logprobs and count:
                prompt[item.sequence.id] = _prompt_logprobs(item, logits[row : row + count])
                starts[item.sequence.id] = item.sequence.num_computed + 1
            row += count + len(item.guesses)
            if item.samples:
                rows[item.sequence.id] = logits[row - 1 - len(item.guesses) : row]
        self.scheduler.computed(planned)
        events: list[Event] = []
        for item in planned:
            s = item.sequence
            sampled = self._sampled(item, rows[s.id]) if s.id in rows else ()
            if s.id in rows or s.id in prompt:
                events.append(Event(s, sampled, starts.get(s.id, 0), prompt.get(s.id, ()), s.finish))
        return events

    def _sampled(self, item: Scheduled, rows: Array) -> tuple[Sampled, ...]:
        """The next token, and those after it for as long as the one chosen is the one guessed.

        Row i tells of the token after guess i - 1, and is sampled as if nothing had been guessed: a guess changes no token. The
        keys and values of wrong guesses are overwritten when their places are computed again.
        """
        sequence = item.sequence
        sampled = self._next(sequence, rows[0])
        right = 0
        for guess, row in zip(item.guesses, rows[1:], strict=True):
            if sequence.finish is not None or sequence.tokens[-1] != guess:
                break
            right += 1
            self.scheduler.advance(sequence, 1)
            sampled += self._next(sequence, row)
        if item.looked_up and sequence.lookup is not None:
            sequence.lookup.learn(len(item.guesses), right)
        return sampled

    def _next(self, sequence: Sequence, row: Array) -> tuple[Sampled, ...]:
        """Samples a row and extends the sequence; whatever fails ends this one alone."""
        try:
            return self._extend(sequence, sample(row, sequence))
        except Exception:
            _log.exception("an answer cannot go on")
            self.scheduler.finish(sequence, "error")
            return ()

    def _extend(self, sequence: Sequence, sampled: Sampled) -> tuple[Sampled, ...]:
        """Appends a sampled token, or ends the sequence; gives the tokens that belong to the answer."""
        if sequence.num_generated == 0:
            sequence.first_token_s = time.monotonic()
            sequence.first_token_work = self.work()
        if sequence.sampling.max_tokens == 0:  # echo alone
            self.scheduler.finish(sequence, "length")
            return ()
        if sampled.token in self._end_tokens:
            self.scheduler.finish(sequence, "stop")
            return ()
        sequence.tokens.append(sampled.token)
        note_tokens(sequence, (sampled.token,), self._model.vocab_size)
        if sequence.constraint is not None:
            sequence.constraint.accept(sampled.token)
            if sequence.constraint.error is not None:
                _log.error("a grammar failed: %s", sequence.constraint.error)
                self.scheduler.finish(sequence, "error")
                return ()
            if sequence.constraint.finished():
                self.scheduler.finish(sequence, "stop")
                return (sampled,)
        if sequence.num_generated >= sequence.sampling.max_tokens:
            self.scheduler.finish(sequence, "length")
        return (sampled,)


def _logits_from(item: Scheduled) -> int:
    """The first of the planned tokens whose logits are wanted."""
    if item.sequence.wants_prompt_logprobs and item.sequence.num_computed < item.sequence.num_prompt:
        return 0
    return item.count - 1 if item.samples else item.count


def _slice(item: Scheduled) -> Slice:
    s = item.sequence
    tokens = s.tokens[s.num_computed : s.num_computed + item.count]
    tokens += item.guesses
    return Slice(tokens, s.num_computed, s.blocks, _logits_from(item), s.adapter)


def _prompt_logprobs(item: Scheduled, rows: Array) -> tuple[TokenLogprobs, ...]:
    """Row i tells of the token after planned token i; the last row of the prompt tells of the answer."""
    s = item.sequence
    following = s.tokens[s.num_computed + 1 : min(s.num_computed + item.count, s.num_prompt - 1) + 1]
    top = s.sampling.top_logprobs or 0
    return tuple(logprobs_of(rows[i], token, top) for i, token in enumerate(following))
