"""Request bodies of chat completions, completions and embeddings.

Every field is honoured, recorded or refused, never ignored: `implemented` is acted on or forwarded to the model (which refuses
what it cannot do), `recorded` is kept with the trace and the stored completion, `refused` answers 400 with the reason. The docs'
table of fields is generated from these classes. Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict, Field

from noria.fields import HINT, RECORDED, FewFaults, JsonObjectFormat, Many, Metadata, TextFormat
from noria.messages import ChatMessage
from noria.prompts import PromptReference
from noria.tools import ChatFunctionTool, ChatNamedToolChoice

__all__ = ["RECORDED", "Body", "ChatBody", "CompletionBody", "EmbeddingBody", "Metadata"]


class Body(FewFaults):
    """A request body. `refused` names fields of OpenAI's that are not honoured here, each with the reason."""

    model_config = ConfigDict(extra="forbid")
    refused: ClassVar[dict[str, str]] = {}


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(default=None, json_schema_extra=RECORDED)


class JsonSchema(Body):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
Stop = str | Annotated[Many[str], Field(max_length=4)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Item = TypeVar("_Item")
_Some = Annotated[Many[_Item], Field(min_length=1)]
_Inputs = Annotated[Many[_Item], Field(max_length=2048)]  # as many as OpenAI takes
_Prompts = Annotated[_Inputs[_Item], Field(min_length=1)]


class StructuredOutputs(Body):
    """What the answer must look like, with vLLM's names: exactly one of them."""

    json_: dict[str, Any] | str | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Many[str] | None = None
    grammar: str | None = None


class _Sampling(Body):
    model: str = Field(min_length=1, max_length=256)
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=128)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    user: str | None = Field(default=None, json_schema_extra=RECORDED)
    # Beyond OpenAI's, with vLLM's names: forwarded, honoured by the local engine.
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    structured_outputs: StructuredOutputs | None = None


class ChatBody(_Sampling):
    """POST /v1/chat/completions."""

    refused: ClassVar[dict[str, str]] = {
        "audio": "audio output is not built",
        "functions": "deprecated by OpenAI; send `tools`",
        "function_call": "deprecated by OpenAI; send `tool_choice`",
        "moderation": "moderation is not built",
        "prediction": "predicted outputs are not built",
        "prompt_cache_options": "the prefix cache needs no options",
        "web_search_options": "web search is not built",
    }

    messages: Many[ChatMessage] = Field(default_factory=list[ChatMessage], description="Needed unless a `prompt` says it all.")
    prompt: PromptReference | None = Field(
        default=None, description="Beyond OpenAI's: a stored prompt, whose messages come before `messages`, as in responses."
    )
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    response_format: ResponseFormat | None = None
    tools: Many[ChatFunctionTool] | None = Field(default=None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | ChatNamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    modalities: Many[Literal["text"]] | None = Field(default=None, json_schema_extra=RECORDED)
    store: bool | None = None
    metadata: Metadata | None = None
    safety_identifier: str | None = Field(default=None, max_length=512, json_schema_extra=RECORDED)
    prompt_cache_key: str | None = Field(default=None, description=HINT, json_schema_extra=RECORDED)
    prompt_cache_retention: str | None = Field(default=None, description=HINT, json_schema_extra=RECORDED)
    service_tier: str | None = Field(default=None, description=HINT, json_schema_extra=RECORDED)


class CompletionBody(_Sampling):
    """POST /v1/completions."""

    refused: ClassVar[dict[str, str]] = {"suffix": "text insertion is not built"}

    prompt: str | _Prompts[str] | _Some[int] | _Prompts[_Some[int]] = Field(union_mode="smart")
    best_of: int | None = Field(default=None, ge=1, le=20)
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=5)


class EmbeddingBody(Body):
    """POST /v1/embeddings."""

    model: str = Field(min_length=1, max_length=256)
    input: str | _Inputs[str] | Many[int] | _Inputs[Many[int]] = Field(union_mode="smart")
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = Field(default=None, json_schema_extra=RECORDED)
    truncate: bool | None = Field(
        default=None, description="Beyond OpenAI's: cut texts that are too long for the model instead of refusing them."
    )
    input_type: Literal["query", "passage"] | None = Field(
        default=None, description="Beyond OpenAI's: what the text is, for embedders that tell queries from passages."
    )
