"""The bodies of requests, strictly: a field that is not listed is a 400 that names it.

Sources: https://platform.openai.com/docs/api-reference/chat/create and …/completions/create. Beyond OpenAI, under the names
that vLLM uses: `top_k`, `min_p`, `repetition_penalty` and `structured_outputs` (one of json, regex, choice, grammar).
Fields that only a server acts on (user, metadata, store, service_tier …) are not for the worker and refused here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from noria.errors import InvalidRequest, UnsupportedField

__all__ = [
    "AdapterRequest",
    "ChatRequest",
    "CompletionRequest",
    "Decoding",
    "ResponseFormat",
    "StructuredOutputs",
    "TokenizeRequest",
    "parse_body",
]

Model = TypeVar("Model", bound=BaseModel)

# Fields of OpenAI's API that mean something Noria's worker does not do; any other unknown name is a typo.
_KNOWN_TO_OPENAI = frozenset(
    {"audio", "function_call", "functions", "modalities", "moderation", "prediction", "reasoning_effort", "verbosity"}
    | {"web_search_options", "suffix", "metadata", "store", "user", "service_tier", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_retention"}
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class CalledFunction(_Strict):
    name: str
    arguments: str


class ToolCall(_Strict):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(_Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content if self.content is not None else self.refusal or ""

    def to_turn(self) -> dict[str, Any]:
        """What a chat template is given."""
        turn: dict[str, Any] = {"role": self.role, "content": self.text}
        if self.tool_calls:
            turn["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        if self.tool_call_id is not None:
            turn["tool_call_id"] = self.tool_call_id
        return turn


class FunctionDefinition(_Strict):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(_Strict):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(_Strict):
    name: str


class NamedTool(_Strict):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(_Strict):
    name: str
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(_Strict):
    """Exactly one of them."""

    json_: Annotated[dict[str, Any] | bool | None, Field(alias="json")] = None
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    grammar: str | None = None


class StreamOptions(_Strict):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Decoding(_Strict):
    """What chat and plain completions share."""

    model: str
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    structured_outputs: StructuredOutputs | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)


class ChatRequest(Decoding):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    tools: list[ToolDefinition] | None = None


class CompletionRequest(Decoding):
    prompt: str | list[str] | list[int] | list[list[int]]
    best_of: int | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One entry a prompt, text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]  # pyright: ignore[reportReturnType]  the union is decided by its first element
        return self.prompt  # pyright: ignore[reportReturnType]


class TokenizeRequest(_Strict):
    """Exactly one of `text` and `messages`; tools count as they would in a chat."""

    model: str | None = None
    text: str | None = None
    messages: list[ChatMessage] | None = None
    tools: list[ToolDefinition] | None = None


class AdapterRequest(_Strict):
    """Requests for the model `name` go through the PEFT adapter in `folder`."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    folder: Annotated[str, Field(pattern=r"^/")]


def parse_body(kind: type[Model], body: bytes) -> Model:
    """Raises InvalidRequest or UnsupportedField that names the first offending field."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("The body is not a JSON object.", code="invalid_json")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _refusal(error, kind) from error


def _refusal(error: ValidationError, kind: type[BaseModel]) -> InvalidRequest:
    problems = error.errors(include_url=False)
    # An unknown name says more than the failed branches of a union beside it.
    part = next((p for p in problems if p["type"] == "literal_error" and p["loc"][-1] == "type"), None)
    first = part or next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    param = _path(first["loc"])
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        if len(first["loc"]) == 1 and name in _KNOWN_TO_OPENAI:
            return UnsupportedField(f"{name!r} is not supported by this engine.", param=param, hint="Leave it out.")
        return InvalidRequest(f"Unknown field {param!r}.", param=param, code="unknown_parameter", hint="Check its spelling.")
    if first["type"] == "missing":
        return InvalidRequest(f"{param!r} is missing.", param=param, code="missing_required_parameter")
    if first["type"] == "literal_error" and param.endswith(".type") and ".content" in param:
        return UnsupportedField(f"{param} is {first['input']!r}; this model reads text parts only.", param=param)
    given = repr(first["input"])
    shown = given if len(given) <= 80 else given[:77] + "…"
    return InvalidRequest(f"{param}: {first['msg']} (given: {shown}).", param=param, code="invalid_value")


def _path(location: tuple[int | str, ...]) -> str:
    """messages[0].content[1].type, without pydantic's names for the branches of a union."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not any(c in part for c in "[(") and part not in ("str", "int", "NamedTool"):
            path += f".{part}" if path else part
    return path
