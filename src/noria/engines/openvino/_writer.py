"""Writes answers as OpenAI's JSON: whole objects and streamed chunks, of chat and of plain completions.

Knows nothing about sending. Token strings of plain completions that are not whole characters are written the way OpenAI
does, `bytes:\\xe4`, so that no two different tokens look alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from noria.engines.openvino._answer import Choice, Piece, token_entry
from noria.engines.openvino._job import Job
from noria.engines.openvino._sequence import TokenLogprobs
from noria.engines.openvino._tokenizer import Tokenizer

__all__ = ["ChatWriter", "CompletionWriter", "usage"]

Json = dict[str, Any]


def usage(job: Job, choices: Sequence[Choice]) -> Json:
    """Prompt tokens count once a prompt, whatever n is; cached ones are those of each prompt's first choice."""
    generated = sum(choice.num_tokens for choice in choices)
    cached = sum(s.num_cached for s in job.sequences[:: job.num_choices])
    return {
        "prompt_tokens": job.num_prompt_tokens,
        "completion_tokens": generated,
        "total_tokens": job.num_prompt_tokens + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class ChatWriter:
    def __init__(self, job: Job, tokenizer: Tokenizer) -> None:
        self._job = job
        self._tokenizer = tokenizer

    def _frame(self, kind: str) -> Json:
        return {"id": self._job.id, "object": kind, "created": self._job.created, "model": self._job.model}

    def first_chunk(self, index: int) -> Json:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self._chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])

    def chunk(self, choice: Choice, piece: Piece) -> Json:
        delta: Json = {}
        if piece.text:
            delta["content"] = piece.text
        if piece.calls:
            delta["tool_calls"] = [_call_delta(choice, call.index, call.name, call.arguments) for call in piece.calls]
        numbers = self._logprobs(piece.tokens) if piece.tokens else None
        return self._chunk([{"index": choice.index, "delta": delta, "logprobs": numbers, "finish_reason": piece.finish}])

    def _chunk(self, choices: list[Json]) -> Json:
        chunk = {**self._frame("chat.completion.chunk"), "choices": choices}
        if self._job.include_usage:
            chunk["usage"] = None
        return chunk

    def usage_chunk(self, numbers: Json) -> Json:
        return {**self._frame("chat.completion.chunk"), "choices": [], "usage": numbers}

    def whole(self, answers: Iterable[tuple[Choice, list[Piece]]], numbers: Json) -> Json:
        choices = [self._whole_choice(choice, pieces) for choice, pieces in answers]
        return {**self._frame("chat.completion"), "choices": choices, "usage": numbers}

    def _whole_choice(self, choice: Choice, pieces: list[Piece]) -> Json:
        text = "".join(piece.text for piece in pieces)
        message: Json = {"role": "assistant", "content": text, "refusal": None}
        if choice.call_ids:
            calls: list[Json] = []
            for call in (call for piece in pieces for call in piece.calls):
                if call.name is not None:
                    calls.append(_call_delta(choice, call.index, call.name, ""))
                    del calls[-1]["index"]
                calls[-1]["function"]["arguments"] += call.arguments
            message["tool_calls"] = calls
            message["content"] = text or None
        tokens = [token for piece in pieces for token in piece.tokens]
        wanted = choice.sequence.sampling.top_logprobs is not None
        return {
            "index": choice.index,
            "message": message,
            "logprobs": self._logprobs(tokens) if wanted else None,
            "finish_reason": choice.finish,
        }

    def _logprobs(self, tokens: Sequence[tuple[int, int, TokenLogprobs]]) -> Json:
        content: list[Json] = []
        for token, _, numbers in tokens:
            entry = token_entry(self._tokenizer, token, numbers.logprob)
            entry["top_logprobs"] = [token_entry(self._tokenizer, t, p) for t, p in numbers.top]
            content.append(entry)
        return {"content": content, "refusal": None}


def _call_delta(choice: Choice, index: int, name: str | None, arguments: str) -> Json:
    if name is None:
        return {"index": index, "function": {"arguments": arguments}}
    return {"index": index, "id": choice.call_ids[index], "type": "function", "function": {"name": name, "arguments": arguments}}


class CompletionWriter:
    def __init__(self, job: Job, tokenizer: Tokenizer) -> None:
        self._job = job
        self._tokenizer = tokenizer
        self._prompts = [tokenizer.decode(s.tokens[: s.num_prompt]) for s in job.sequences] if job.echo else []
        self._echoed: set[int] = set()  # choices whose prompt has been streamed

    def _frame(self) -> Json:
        job = self._job
        return {"id": job.id, "object": "text_completion", "created": job.created, "model": job.model}

    def first_chunk(self, index: int) -> Json | None:
        return None

    def chunk(self, choice: Choice, piece: Piece) -> Json:
        text, numbers = piece.text, self._numbers(choice, piece.tokens, echoed=False)
        if self._job.echo and choice.index not in self._echoed:
            self._echoed.add(choice.index)
            text = self._prompts[choice.index] + text
            numbers = self._numbers(choice, piece.tokens, echoed=True)
        chunk = {**self._frame(), "choices": [_choice(choice.index, text, numbers, piece.finish)]}
        if self._job.include_usage:
            chunk["usage"] = None
        return chunk

    def usage_chunk(self, numbers: Json) -> Json:
        return {**self._frame(), "choices": [], "usage": numbers}

    def whole(self, answers: Iterable[tuple[Choice, list[Piece]]], numbers: Json) -> Json:
        choices: list[Json] = []
        for choice, pieces in answers:
            text = "".join(piece.text for piece in pieces)
            if self._job.echo:
                text = self._prompts[choice.index] + text
            tokens = [token for piece in pieces for token in piece.tokens]
            choices.append(_choice(choice.index, text, self._numbers(choice, tokens, echoed=self._job.echo), choice.finish))
        return {**self._frame(), "choices": choices, "usage": numbers}

    def _numbers(self, choice: Choice, tokens: Sequence[tuple[int, int, TokenLogprobs]], *, echoed: bool) -> Json | None:
        """OpenAI's older shape: parallel lists. An echoed prompt's first token has no log-probability."""
        sampling = choice.sequence.sampling
        if sampling.top_logprobs is None:
            return None
        given: list[tuple[int, TokenLogprobs | None]] = [(token, numbers) for token, _, numbers in tokens]
        start = len(self._prompts[choice.index]) if self._job.echo else 0
        offsets = [start + offset for _, offset, _ in tokens]
        if echoed:
            prompt = choice.sequence.tokens[: choice.sequence.num_prompt]
            given = [*zip(prompt, [None, *choice.prompt_logprobs], strict=True), *given]
            offsets = [*self._offsets(prompt), *offsets]
        return {
            "tokens": [self._written(token) for token, _ in given],
            "token_logprobs": [None if numbers is None else numbers.logprob for _, numbers in given],
            "top_logprobs": [None if numbers is None else self._top(token, numbers) for token, numbers in given],
            "text_offset": offsets,
        }

    def _top(self, token: int, numbers: TokenLogprobs) -> Json:
        """The likeliest tokens and the chosen one; of two that are written alike the likelier stays."""
        top: Json = {}
        for other, logprob in numbers.top:
            top.setdefault(self._written(other), logprob)
        top.setdefault(self._written(token), numbers.logprob)
        return top

    def _written(self, token: int) -> str:
        data = self._tokenizer.bytes_of(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def _offsets(self, tokens: Sequence[int]) -> list[int]:
        """The character at which each token begins."""
        offsets: list[int] = []
        characters = 0
        for token in tokens:
            offsets.append(characters)
            # Counting the bytes that begin a character counts characters, however tokens cut them.
            characters += sum(1 for byte in self._tokenizer.bytes_of(token) if byte & 0xC0 != 0x80)
        return offsets


def _choice(index: int, text: str, numbers: Json | None, finish: str | None) -> Json:
    return {"text": text, "index": index, "logprobs": numbers, "finish_reason": finish}
