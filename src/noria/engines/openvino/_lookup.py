"""Guesses the next tokens of an answer from its own text: prompt-lookup speculation.

Answers that quote a passage, repeat a name or continue a list often go on as they did after the same three tokens
before. A guess costs little (verifying four tokens takes about 1.2 times as long as computing one) and a wrong one
changes nothing: only guesses that equal what the model would have chosen are kept.

Source: Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Lookup"]

GRAM = 3
SHORTEST, LONGEST = 2, 8


class Lookup:
    """The places of every three consecutive tokens of one growing list, and how long guesses should be."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._length = SHORTEST

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that followed the last three tokens the last time they came; often none."""
        end = len(tokens) - GRAM
        for at in range(self._indexed, end):  # the last three themselves are not indexed: they have no successor yet
            self._after[tuple(tokens[at : at + GRAM])] = at + GRAM
        self._indexed = max(self._indexed, end)
        place = self._after.get(tuple(tokens[-GRAM:]))
        return [] if place is None or most <= 0 else list(tokens[place : place + min(self._length, most)])

    def learn(self, guessed: int, right: int) -> None:
        """Longer guesses after a right one, shorter after a wrong one."""
        self._length = min(LONGEST, self._length + 2) if right == guessed else max(SHORTEST, self._length - 1)
