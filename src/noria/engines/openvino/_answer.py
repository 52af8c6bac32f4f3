"""Turns one sequence's tokens into the pieces of an OpenAI choice: text, tool calls, log-probabilities, the finish.

Knows nothing about HTTP or the engine's steps; used alike for streamed and whole answers. Text is held back while it
could still be the beginning of a stop string; whatever follows a stop string is never given out.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from noria.engines.openvino._engine import Event
from noria.engines.openvino._job import Job
from noria.engines.openvino._sequence import Sequence, TokenLogprobs
from noria.engines.openvino._tokenizer import Detokenizer, Tokenizer
from noria.engines.openvino._tools import CallPiece, CallReader

__all__ = ["Choice", "Piece", "StopScanner", "token_entry"]


class StopScanner:
    """Gives text that is certainly before any stop string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Text to give out, and whether a stop string was met."""
        if not self._stops:
            return text, False
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            text, self._held = self._held[: min(found)], ""
            return text, True
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text, False

    def flush(self) -> str:
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


@dataclass
class Piece:
    """What to give out now. `tokens` are those whose text begins in what has been given out so far."""

    text: str = ""
    calls: list[CallPiece] = field(default_factory=list[CallPiece])
    tokens: list[tuple[int, int, TokenLogprobs]] = field(default_factory=list[tuple[int, int, TokenLogprobs]])
    finish: str | None = None

    def __bool__(self) -> bool:
        return bool(self.text or self.calls or self.tokens or self.finish)


class Choice:
    """The state of one choice; `take` is called with each event of its sequence, in order."""

    def __init__(self, index: int, sequence: Sequence, job: Job, tokenizer: Tokenizer) -> None:
        self.index = index
        self.sequence = sequence
        self.call_ids: list[str] = []
        self.prompt_logprobs: list[TokenLogprobs] = []
        self.num_tokens = 0
        self.failed: str | None = None
        self._job = job
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopScanner(job.stop)
        self._calls = CallReader() if job.reads_calls else None
        self._decoded = 0  # characters that the tokens so far stand for
        self._given = 0  # characters given out
        self._waiting: list[tuple[int, int, TokenLogprobs]] = []  # (token, offset of its first character, its numbers)
        self.finish: str | None = None

    def take(self, event: Event) -> Piece:
        if self.finish is not None:
            return Piece()
        # After a pre-emption the prompt is read anew, in other chunks: what is known already is left out.
        known = len(self.prompt_logprobs) + 1 - event.prompt_from
        if event.prompt_logprobs and known >= 0:
            self.prompt_logprobs += event.prompt_logprobs[known:]
        piece = Piece()
        for sampled in event.sampled:
            self.num_tokens += 1
            text = self._detokenizer.push(sampled.token)
            if sampled.logprobs is not None:
                self._waiting.append((sampled.token, self._decoded, sampled.logprobs))
            self._decoded += len(text)
            if self._give(text, piece):
                return self._stopped(piece)
        if event.finish is None:
            return self._with_tokens(piece)
        if event.finish in ("error", "cancelled"):
            self.failed = event.finish
            return self._end(piece, "stop")
        rest = self._detokenizer.flush()
        self._decoded += len(rest)
        if self._give(rest, piece):
            return self._stopped(piece)
        self._deliver(self._stops.flush(), piece)
        if self._calls is not None:
            piece.text += self._calls.flush()
        self._given = self._decoded + 1  # nothing is held back any more
        return self._end(piece, event.finish)

    def _give(self, text: str, piece: Piece) -> bool:
        clear, stopped = self._stops.push(text)
        self._deliver(clear, piece)
        return stopped

    def _deliver(self, text: str, piece: Piece) -> None:
        self._given += len(text)
        if self._calls is None:
            piece.text += text
            return
        plain, calls = self._calls.push(text)
        piece.text += plain
        piece.calls += calls
        self.call_ids += [f"call_{secrets.token_hex(12)}" for call in calls if call.name is not None]

    def _stopped(self, piece: Piece) -> Piece:
        """A stop string ends the answer; it cuts one that only the end of its grammar, or of a call, makes valid."""
        if self._calls is None:
            return self._end(piece, "length" if self._job.constrained else "stop")
        cut = self._job.constrained or self._calls.in_call
        piece.text += self._calls.flush()
        return self._end(piece, "length" if cut else "stop")

    def _with_tokens(self, piece: Piece) -> Piece:
        while self._waiting and self._waiting[0][1] < self._given:
            piece.tokens.append(self._waiting.pop(0))
        return piece

    def _end(self, piece: Piece, finish: str) -> Piece:
        if finish == "stop" and self.call_ids:
            finish = "tool_calls"
        self.finish = piece.finish = finish
        return self._with_tokens(piece)


def token_entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    """OpenAI's shape of one token of a chat's logprobs."""
    data = tokenizer.bytes_of(token)
    return {"token": data.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(data)}
