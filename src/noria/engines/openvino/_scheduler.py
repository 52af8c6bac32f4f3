"""Decides what each model step computes: continuous batching over paged blocks.

Knows nothing about the model, sampling or text. A step is a list of (sequence, number of its tokens to compute):
1. every decoding sequence gets its one token; when blocks run out the youngest sequence is pre-empted (its blocks are
   given back and it is computed again later, mostly from the prefix cache);
2. what is left of the token budget is shared evenly by up to `MAX_PREFILLING` sequences that still read their prompt,
   so that a short prompt does not wait behind a long one;
3. waiting sequences are admitted in order of arrival while a slot, blocks and budget are there. Nobody overtakes;
4. what is left of the budget is for guesses, verified in the same step: the tokens that a sequence's grammar leaves no choice
   of, and, when it runs alone, those that followed its last ones before (`_lookup`).

Invariants: a running sequence's blocks cover its computed tokens; a waiting one holds no block; `check` tests them.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, replace

from noria.engines.openvino._blocks import BlockPool, chain_digest
from noria.engines.openvino._lookup import Lookup
from noria.engines.openvino._sequence import FinishReason, Sequence
from noria.errors import ContextTooLong

__all__ = ["Limits", "Scheduled", "Scheduler"]

_log = logging.getLogger(__name__)

MAX_PREFILLING = 4
MAX_FORCED = 16
"""Tokens of a grammar's only way that one step takes at once."""


@dataclass(frozen=True)
class Limits:
    block_size: int  # tokens in a block
    context_length: int  # tokens
    max_batch_tokens: int  # tokens computed in one step
    max_running: int  # sequences


@dataclass(frozen=True)
class Scheduled:
    """`count` tokens of `sequence` from `num_computed` on; `samples` when the last of them is its last token.

    `guesses` are computed behind them; they are not part of the sequence until verified.
    """

    sequence: Sequence
    count: int
    guesses: tuple[int, ...] = ()
    looked_up: bool = False  # whether the guesses come from the text, and may be wrong

    @property
    def samples(self) -> bool:
        return self.sequence.num_computed + self.count == len(self.sequence.tokens)


class Scheduler:
    def __init__(self, pool: BlockPool, limits: Limits) -> None:
        self.pool = pool
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in order of admission

    def refuse_if_too_long(self, num_prompt: int, max_tokens: int) -> None:
        """Raises ContextTooLong when the request could not finish even alone."""
        limits = self.limits
        room = min(limits.context_length, self.pool.num_blocks * limits.block_size)
        if num_prompt + max_tokens <= room:
            return
        whose = "the model's context" if room == limits.context_length else "this engine's key/value cache"
        raise ContextTooLong(
            f"The prompt has {num_prompt} tokens and {max_tokens} were asked for, but {whose} holds {room} tokens.",
            param="max_tokens" if num_prompt < room else "messages",
            hint="Shorten the prompt or ask for fewer tokens.",
        )

    def add(self, sequence: Sequence) -> None:
        sequence.arrived_s = time.monotonic()
        self.waiting.append(sequence)

    def plan(self) -> list[Scheduled]:
        """The next step; every planned sequence holds the blocks that it needs. Empty when there is nothing to do."""
        budget = self.limits.max_batch_tokens
        planned = self._plan_decoding(budget)
        budget -= len(planned)
        prefilling = [s for s in self.running if s.num_missing > 1 and s.finish is None]
        if not planned or budget > 0:
            self._admit(prefilling, budget)
            planned += self._plan_prefilling(prefilling, budget)
        # Whoever was pre-empted to make room for another is not in this step.
        running = {s.id for s in self.running}
        return self._with_guesses([item for item in planned if item.sequence.id in running])

    def _plan_decoding(self, budget: int) -> list[Scheduled]:
        planned: list[Scheduled] = []
        decoding = [s for s in self.running if s.num_missing == 1]
        # When there are more than the budget, the least recently served go first: they are moved to the end below.
        for sequence in decoding[:budget]:
            if sequence not in self.running:
                continue  # pre-empted a moment ago for an older one
            if self._grow(sequence, 1):
                planned.append(Scheduled(sequence, 1))
        if len(decoding) > budget:
            served = {s.sequence.id for s in planned}
            self.running.sort(key=lambda s: s.id in served)
        return planned

    def _with_guesses(self, planned: list[Scheduled]) -> list[Scheduled]:
        alone = len(self.running) == len(planned) == 1 and not self.waiting
        budget = self.limits.max_batch_tokens - sum(item.count for item in planned)
        guessed: list[Scheduled] = []
        for item in planned:
            with_guesses = self._guess(item, budget, alone=alone) if item.count == 1 and item.samples else item
            sequence, budget = item.sequence, budget - len(with_guesses.guesses)
            more = self._blocks_for(sequence.num_computed + 1 + len(with_guesses.guesses)) - len(sequence.blocks)
            if more > self.pool.num_free:
                guessed.append(item)
                continue
            sequence.blocks += [self.pool.take() for _ in range(more)]
            guessed.append(with_guesses)
        return guessed

    def _guess(self, item: Scheduled, budget: int, *, alone: bool) -> Scheduled:
        sequence, constraint = item.sequence, item.sequence.constraint
        # The token after the last guess is sampled too, so one less than what is still wanted.
        most = min(budget, sequence.sampling.max_tokens - sequence.num_generated - 1)
        if most <= 0:
            return item
        try:
            forced = constraint.forced() if constraint is not None else []
            if forced or not alone:
                return replace(item, guesses=tuple(forced[: min(most, MAX_FORCED)]))
            sequence.lookup = sequence.lookup or Lookup()
            guesses = sequence.lookup.guess(sequence.tokens, most)
            if guesses and constraint is not None:
                guesses = guesses[: constraint.allowed(guesses)]
            return replace(item, guesses=tuple(guesses), looked_up=bool(guesses))
        except Exception:  # a grammar's failure ends its own answer when that is sampled
            _log.exception("a grammar cannot say what comes next")
            return item

    def _grow(self, sequence: Sequence, count: int) -> bool:
        """Gives the sequence blocks for `count` more tokens, pre-empting younger ones; False when it was itself the victim."""
        needed = self._blocks_for(sequence.num_computed + count) - len(sequence.blocks)
        while needed > self.pool.num_free:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.blocks += [self.pool.take() for _ in range(needed)]
        return True

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.limits.block_size)

    def _preempt(self, victim: Sequence) -> None:
        self.running.remove(victim)
        self.pool.release(victim.blocks)
        victim.blocks = []
        victim.num_computed = 0
        victim.num_preempted += 1
        self.waiting.appendleft(victim)

    def _admit(self, prefilling: list[Sequence], budget: int) -> None:
        while self.waiting and len(self.running) < self.limits.max_running:
            if len(prefilling) >= min(MAX_PREFILLING, budget):
                return
            sequence = self._first_ready()
            if sequence is None or not self._enter(sequence):
                return
            self.waiting.remove(sequence)
            self.running.append(sequence)
            prefilling.append(sequence)

    def _first_ready(self) -> Sequence | None:
        """The oldest waiting sequence that does not wait for a sibling's prompt."""
        for sequence in self.waiting:
            first = sequence.waits_for
            if first is None or first.finish is not None or first.num_computed >= first.num_prompt:
                return sequence
        return None

    def _enter(self, sequence: Sequence) -> bool:
        """Attaches cached blocks if the rest of the sequence fits beside those running; else leaves it as it was."""
        shared = self._share_prefix(sequence)
        needed = self._blocks_for(len(sequence.tokens)) - len(shared)
        # What those still reading their prompts will take is theirs already; and one block of slack a running sequence, for
        # admitting into the very last block would pre-empt at once.
        promised = sum(max(0, self._blocks_for(len(s.tokens)) - len(s.blocks)) for s in self.running)
        slack = len(self.running)
        if needed + promised + slack > self.pool.num_free and self.running:
            self.pool.release(shared)
            return False
        sequence.blocks = shared
        sequence.num_computed = len(shared) * self.limits.block_size
        if sequence.num_preempted == 0:
            sequence.num_cached = sequence.num_computed
            sequence.admitted_s = time.monotonic()
        return True

    def _share_prefix(self, sequence: Sequence) -> list[int]:
        """Blocks of the longest cached prefix, at least one token short of everything (its logits are needed)."""
        if sequence.wants_prompt_logprobs and sequence.num_generated == 0:
            return []
        shared: list[int] = []
        for index in range((len(sequence.tokens) - 1) // self.limits.block_size):
            block = self.pool.share(self._digest(sequence, index))
            if block is None:
                break
            shared.append(block)
        return shared

    def _digest(self, sequence: Sequence, index: int) -> bytes:
        """The chain digest of the sequence's full block `index`; kept, for tokens never change."""
        size = self.limits.block_size
        while len(sequence.digests) <= index:
            at = len(sequence.digests)
            parent = sequence.digests[-1] if at else sequence.salt
            sequence.digests.append(chain_digest(parent, sequence.tokens[at * size : (at + 1) * size]))
        return sequence.digests[index]

    def _plan_prefilling(self, prefilling: list[Sequence], budget: int) -> list[Scheduled]:
        planned: list[Scheduled] = []
        # Those with the least left come first; what they do not need of their share goes to the others.
        order = sorted(prefilling, key=lambda s: s.num_missing)
        for position, sequence in enumerate(order):
            if sequence not in self.running:
                continue
            count = min(sequence.num_missing, budget // (len(order) - position))
            if count and self._grow(sequence, count):
                planned.append(Scheduled(sequence, count))
                budget -= count
        return planned

    def computed(self, planned: list[Scheduled]) -> None:
        """Records that the step ran: publishes blocks that became full. Guesses do not count until verified."""
        for item in planned:
            self.advance(item.sequence, item.count)

    def advance(self, sequence: Sequence, count: int) -> None:
        """`count` more of the sequence's tokens have their keys and values."""
        size = self.limits.block_size
        before = sequence.num_computed // size
        sequence.num_computed += count
        for index in range(before, sequence.num_computed // size):
            self.pool.publish(sequence.blocks[index], self._digest(sequence, index))

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """Ends a sequence wherever it is and gives its blocks back."""
        if sequence.finish is not None:
            return
        sequence.finish = reason
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self.pool.release(sequence.blocks)
        sequence.blocks = []

    def check(self) -> None:
        """The integrity check: raises AssertionError when an invariant is broken. Cheap enough for idle moments."""
        self.pool.check([sequence.blocks for sequence in self.running])
        for sequence in self.running:
            assert sequence.num_computed <= len(sequence.tokens)
            assert len(sequence.blocks) >= self._blocks_for(sequence.num_computed)
        assert all(not s.blocks and s.finish is None for s in self.waiting)
        if not self.running and not self.waiting:
            assert self.pool.num_free == self.pool.num_blocks, "an idle engine holds blocks"
