"""From a parsed request to the sequences that the engine runs.

Knows the model's tokenizer, template and limits; knows nothing about HTTP or about how answers are written.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Literal

from noria.engines.openvino._adapter import Adapter
from noria.engines.openvino._chat import ChatTemplate
from noria.engines.openvino._grammar import Grammar, Grammars
from noria.engines.openvino._sequence import Sampling, Sequence
from noria.engines.openvino._tokenizer import Tokenizer
from noria.engines.openvino._tools import Tool, calls_grammar
from noria.engines.openvino._wire import ChatRequest, CompletionRequest, Decoding, NamedTool, ToolDefinition
from noria.errors import ContextTooLong, InvalidRequest, UnsupportedField

__all__ = ["Job", "JobMaker", "tools_of"]

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")
MAX_SEQUENCES = 128
"""Answers of one request: prompts × n."""


@dataclass(frozen=True)
class Job:
    """One request, ready to run. `sequences[i]` is choice i of the answer."""

    kind: Literal["chat", "completion"]
    id: str
    created: int
    model: str
    sequences: tuple[Sequence, ...]
    num_prompt_tokens: int
    num_choices: int  # n: sequences of one prompt
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    constrained: bool  # valid only when its grammar has come to its end; text that may lead to calls always is
    reads_calls: bool = False
    echo: bool = False


@dataclass(frozen=True)
class JobMaker:
    """What is needed to understand a request to one served model."""

    tokenizer: Tokenizer
    template: ChatTemplate
    grammars: Grammars
    room: int  # tokens: the smaller of the context and the key/value cache
    vocab_size: int
    bos: int | None  # put before plain prompts, when the model was trained so

    def count_chat(self, messages: Seq[dict[str, object]], tools: Seq[ToolDefinition]) -> list[int]:
        return self.tokenizer.encode(self.template.render(list(messages), tools_of(tools)))

    def chat(self, request: ChatRequest, adapter: Adapter | None = None) -> Job:
        tools, grammar = self._tools_of(request)
        if request.response_format is not None or request.structured_outputs is not None:
            if grammar is not None:
                raise InvalidRequest(
                    "Tools and a structured answer cannot be combined.", param="tools", hint='Use tool_choice "none".'
                )
            grammar = self._answer_grammar(request)
        forced = request.tool_choice not in (None, "none", "auto")
        turns = [message.to_turn() for message in request.messages]
        prompt = self.tokenizer.encode(self.template.render(turns, tools, tool_required=forced))
        if request.max_tokens is not None and request.max_completion_tokens is not None:
            raise InvalidRequest("Give max_completion_tokens or max_tokens, not both.", param="max_tokens")
        if request.max_tokens == 0:
            raise InvalidRequest("max_tokens: at least 1.", param="max_tokens", code="invalid_value")
        if request.top_logprobs is not None and not request.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs: true.", param="top_logprobs", code="invalid_value")
        asked = request.max_completion_tokens or request.max_tokens
        top = (request.top_logprobs or 0) if request.logprobs else None
        sequences = self._sequences(request, [prompt], asked, top, grammar, echo=False)
        _adapt(sequences, adapter)
        reads_calls = bool(grammar and tools)
        constrained = grammar is not None and (forced or not reads_calls)
        return self._job("chat", request, sequences, constrained=constrained, reads_calls=reads_calls)

    def completion(self, request: CompletionRequest, adapter: Adapter | None = None) -> Job:
        if request.best_of is not None and request.best_of != (request.n or 1):
            raise UnsupportedField("best_of other than n is not supported.", param="best_of", hint="Ask for n answers.")
        if request.max_tokens == 0 and not request.echo:
            raise InvalidRequest("max_tokens 0 needs echo: true.", param="max_tokens", code="invalid_value")
        if not request.prompts:
            raise InvalidRequest("prompt: at least one is needed.", param="prompt", code="invalid_value")
        grammar = self._structured(request)
        prompts = [self._prompt_tokens(p) for p in request.prompts]
        asked = 16 if request.max_tokens is None else request.max_tokens
        sequences = self._sequences(request, prompts, asked, request.logprobs, grammar, echo=bool(request.echo))
        _adapt(sequences, adapter)
        return self._job("completion", request, sequences, constrained=grammar is not None, echo=bool(request.echo))

    def _prompt_tokens(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            tokens = self.tokenizer.encode(prompt)
            if self.bos is not None and tokens[:1] != [self.bos]:
                tokens.insert(0, self.bos)
        else:
            tokens = prompt
            bad = next((t for t in tokens if not 0 <= t < self.vocab_size), None)
            if bad is not None:
                raise InvalidRequest(f"prompt: {bad} is not a token of this model.", param="prompt", code="invalid_value")
        if not tokens:
            raise InvalidRequest("prompt: at least one token is needed.", param="prompt", code="invalid_value")
        return tokens

    def _tools_of(self, request: ChatRequest) -> tuple[list[Tool], Grammar | None]:
        """The tools to describe and the grammar that calls must follow."""
        choice = request.tool_choice
        tools = tools_of(request.tools or ())
        if not tools:
            if choice not in (None, "none"):
                raise InvalidRequest("tool_choice needs tools.", param="tool_choice", code="invalid_value")
            return [], None
        if choice == "none":
            return [], None
        allowed = tools
        if isinstance(choice, NamedTool):
            allowed = [tool for tool in tools if tool.name == choice.function.name]
            if not allowed:
                raise InvalidRequest(f"tool_choice: there is no tool {choice.function.name!r}.", param="tool_choice")
        # Models that were never taught tools repeat a call until they are cut: for them several calls must be asked for.
        parallel = self.template.knows_tools if request.parallel_tool_calls is None else request.parallel_tool_calls
        parallel = parallel and not isinstance(choice, NamedTool)
        mode = "auto" if choice in (None, "auto") else "forced"
        return tools, self.grammars.lark(calls_grammar(allowed, mode, parallel=parallel), "tools")

    def _answer_grammar(self, request: ChatRequest) -> Grammar | None:
        form = request.response_format
        if form is None:
            return self._structured(request)
        if request.structured_outputs is not None:
            raise InvalidRequest("Give response_format or structured_outputs, not both.", param="structured_outputs")
        if form.type == "text":
            return None
        if form.type == "json_object":
            return self.grammars.json_schema({"type": "object"}, "response_format")
        if form.json_schema is None:
            raise InvalidRequest("'response_format.json_schema' is missing.", param="response_format.json_schema")
        return self.grammars.json_schema(form.json_schema.schema_ or {"type": "object"}, "response_format.json_schema.schema")

    def _structured(self, request: Decoding) -> Grammar | None:
        given = request.structured_outputs
        if given is None:
            return None
        named = {"json": given.json_, "regex": given.regex, "choice": given.choice, "grammar": given.grammar}
        chosen = [kind for kind, value in named.items() if value is not None]
        if len(chosen) != 1:
            raise InvalidRequest("structured_outputs: give one of json, regex, choice, grammar.", param="structured_outputs")
        param = f"structured_outputs.{chosen[0]}"
        if given.json_ is not None:
            return self.grammars.json_schema(given.json_, param)
        if given.regex is not None:
            return self.grammars.regex(given.regex, param)
        if given.choice is not None:
            return self.grammars.choice(given.choice, param)
        return self.grammars.lark(given.grammar or "", param)

    def _sequences(
        self,
        request: Decoding,
        prompts: list[list[int]],
        asked: int | None,
        top: int | None,
        grammar: Grammar | None,
        *,
        echo: bool,
    ) -> list[Sequence]:
        choices = request.n or 1
        if len(prompts) * choices > MAX_SEQUENCES:
            raise InvalidRequest(f"{len(prompts)} prompts × {choices} answers: at most {MAX_SEQUENCES} in a request.", param="n")
        biases = self._biases(request)
        seed = secrets.randbits(63) if request.seed is None else request.seed
        made: list[Sequence] = []
        for prompt in prompts:
            if len(prompt) >= self.room:
                raise ContextTooLong(
                    f"The prompt has {len(prompt)} tokens; {self.room} is the most that prompt and answer may have together.",
                    param="messages" if isinstance(request, ChatRequest) else "prompt",
                    hint="Shorten the prompt.",
                )
            first: Sequence | None = None
            for choice in range(choices):
                sampling = Sampling(
                    max_tokens=self.room - len(prompt) if asked is None else asked,
                    temperature=1.0 if request.temperature is None else request.temperature,
                    top_p=1.0 if request.top_p is None else request.top_p,
                    top_k=max(request.top_k or 0, 0),
                    min_p=request.min_p or 0.0,
                    frequency_penalty=request.frequency_penalty or 0.0,
                    presence_penalty=request.presence_penalty or 0.0,
                    repetition_penalty=request.repetition_penalty or 1.0,
                    logit_bias=biases,
                    seed=seed + choice * 0x5851F42D4C957F2D,
                    top_logprobs=top,
                )
                sequence = Sequence(
                    list(prompt),
                    sampling,
                    constraint=grammar.start() if grammar else None,
                    wants_prompt_logprobs=echo and top is not None,
                    waits_for=first,
                )
                first = first or sequence
                made.append(sequence)
        return made

    def _biases(self, request: Decoding) -> tuple[tuple[int, float], ...]:
        biases: list[tuple[int, float]] = []
        for key, bias in (request.logit_bias or {}).items():
            if not _TOKEN_ID.fullmatch(key) or int(key) >= self.vocab_size:
                raise InvalidRequest(
                    f"logit_bias: {key!r} is not a token id of this model.", param="logit_bias", code="invalid_value"
                )
            biases.append((int(key), bias))
        return tuple(biases)

    def _job(
        self,
        kind: Literal["chat", "completion"],
        request: Decoding,
        sequences: list[Sequence],
        *,
        constrained: bool,
        reads_calls: bool = False,
        echo: bool = False,
    ) -> Job:
        options = request.stream_options
        if options is not None and not request.stream:
            raise InvalidRequest("stream_options needs stream: true.", param="stream_options")
        choices = request.n or 1
        return Job(
            kind=kind,
            id=("chatcmpl-" if kind == "chat" else "cmpl-") + secrets.token_hex(12),
            created=int(time.time()),
            model=request.model,
            sequences=tuple(sequences),
            num_prompt_tokens=sum(s.num_prompt for s in sequences[::choices]),
            num_choices=choices,
            stop=request.stop_strings,
            stream=bool(request.stream),
            include_usage=bool(options and options.include_usage),
            constrained=constrained,
            reads_calls=reads_calls,
            echo=echo,
        )


def _adapt(sequences: list[Sequence], adapter: Adapter | None) -> None:
    """Equal keys and values need equal weights: the digest keeps the prefix caches of base and adapters apart."""
    if adapter is not None:
        for sequence in sequences:
            sequence.adapter, sequence.salt = adapter, adapter.digest


def tools_of(definitions: Seq[ToolDefinition]) -> list[Tool]:
    return [Tool(d.function.name, d.function.description or "", d.function.parameters or {"type": "object"}) for d in definitions]
