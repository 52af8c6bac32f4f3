"""Guesses the next tokens of an answer from its own text: prompt-lookup speculation.

Answers that quote a passage, repeat a name or continue a list often go on as they did after the same three tokens
before. A guess costs little (verifying four tokens takes about 1.2 times as long as computing one) and a wrong one
changes nothing: only guesses that equal what was chosen without them are kept.

Source: Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Lookup"]

GRAM = 3
LONGEST = 8
WORTH = 0.1
"""A guess is made when it comes true at least this often: about what computing one more token costs beside a step's first."""
_WEIGHT = 0.2  # of the newest guess in the running rate
_PATIENCE = 0.002  # what the rate recovers by with each chance not taken: misses are tried again after some ten of them


class Lookup:
    """The places of every three consecutive tokens of one growing list, and how often guesses came true lately."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._rate = 0.5

    @property
    def length(self) -> int:
        """Tokens to guess: as many as are worth it, when each comes true as often as those before; 0 after many misses."""
        return min(LONGEST, int(math.log(WORTH) / math.log(self._rate))) if self._rate >= WORTH else 0

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that followed the last three tokens the last time they came; often none."""
        end = len(tokens) - GRAM
        for at in range(self._indexed, end):  # the last three themselves are not indexed: they have no successor yet
            self._after[tuple(tokens[at : at + GRAM])] = at + GRAM
        self._indexed = max(self._indexed, end)
        place = self._after.get(tuple(tokens[-GRAM:]))
        if place is None or most <= 0:
            return []
        length = self.length
        if length == 0:
            self._rate += _PATIENCE
        return list(tokens[place : place + min(length, most)])

    def learn(self, guessed: int, right: int) -> None:
        """What became of the last guesses; those behind the first wrong one tell nothing."""
        for came_true in [1.0] * right + [0.0] * (right < guessed):
            self._rate += _WEIGHT * (came_true - self._rate)
        self._rate = min(self._rate, 0.99)
