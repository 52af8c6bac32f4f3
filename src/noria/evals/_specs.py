"""What evals and runs are made of, as OpenAI's API spells them; strict, a field that is not honoured is refused by name.

Beside OpenAI's sources there is `noria_dataset`: rows of a dataset of this instance. Source:
https://platform.openai.com/docs/api-reference/evals
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from noria.fields import Many

from ._messages import TemplateMessage
from ._parsing import Spec
from ._templates import SAMPLE_FIELDS, Variables

__all__ = [
    "CompletionsRun",
    "DatasetSource",
    "FileContent",
    "FileId",
    "JsonlRun",
    "ResponsesSource",
    "RunSpec",
    "Sampling",
    "Source",
    "StoredCompletions",
    "config_schema",
    "run_spec",
    "variables_of",
]

Metadata = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]]


class CustomConfig(Spec):
    type: Literal["custom"]
    item_schema: dict[str, Any]
    include_sample_schema: bool = False


class LogsConfig(Spec):
    type: Literal["logs", "stored_completions"]
    metadata: dict[str, Any] | None = None


config_spec: TypeAdapter[CustomConfig | LogsConfig] = TypeAdapter(
    Annotated[CustomConfig | LogsConfig, Field(discriminator="type")]
)

_SAMPLE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "output_text": {"type": "string"},
        "output_json": {},
        "output_tools": {"type": "array"},
        "model": {"type": "string"},
        "finish_reason": {"type": "string"},
        "input": {"type": "array"},
    },
    "required": ["output_text"],
}
_LOG_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "input": {"type": "array"},
        "output": {"type": "string"},
        "model": {"type": "string"},
        "metadata": {"type": "object"},
        "tools": {"type": "array"},
    },
}
assert set(_SAMPLE_SCHEMA["properties"]) == set(SAMPLE_FIELDS)


def config_schema(config: CustomConfig | LogsConfig) -> dict[str, Any]:
    """The data source config as it is shown and stored: with the schema of what templates may name."""
    if isinstance(config, LogsConfig):
        schema = {
            "type": "object",
            "properties": {"item": _LOG_SCHEMA, "sample": _SAMPLE_SCHEMA},
            "required": ["item", "sample"],
        }
        return {"type": config.type, "metadata": config.metadata or {}, "schema": schema}
    properties: dict[str, Any] = {"item": config.item_schema}
    required = ["item"]
    if config.include_sample_schema:
        properties["sample"] = _SAMPLE_SCHEMA
        required.append("sample")
    return {"type": "custom", "schema": {"type": "object", "properties": properties, "required": required}}


def variables_of(stored: Mapping[str, Any]) -> Variables:
    """What templates of an eval may name, from its stored config (an imported one may lack parts)."""
    properties = (stored.get("schema") or {}).get("properties") or {}
    return Variables(properties.get("item") or {}, "sample" in properties or stored.get("type") != "custom")


# --- where rows come from ----------------------------------------------------------------------------------------------


class GivenRow(Spec):
    item: dict[str, Any]
    sample: dict[str, Any] | None = None


class FileContent(Spec):
    type: Literal["file_content"]
    content: Many[GivenRow]


class FileId(Spec):
    type: Literal["file_id"]
    id: str = Field(min_length=1, max_length=256)


class StoredCompletions(Spec):
    type: Literal["stored_completions"]
    metadata: dict[str, str] | None = None
    model: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    limit: int | None = Field(default=None, ge=1)


class ResponsesSource(Spec):
    """Stored responses. Of OpenAI's filters those are here that stored responses can be told by."""

    type: Literal["responses"]
    metadata: dict[str, str] | None = None
    model: str | None = None
    instructions_search: str | None = Field(default=None, min_length=1)
    created_after: int | None = Field(default=None, ge=0)
    created_before: int | None = Field(default=None, ge=0)
    temperature: float | None = None
    top_p: float | None = None


class DatasetSource(Spec):
    """`dataset` is an id or a name; `version` is pinned when the run is made (default: the newest)."""

    type: Literal["noria_dataset"]
    dataset: str = Field(min_length=1, max_length=256)
    version: int | None = Field(default=None, ge=1)
    split: Literal["train", "validation", "test"] | None = None
    limit: int | None = Field(default=None, ge=1)


_JsonlSource = Annotated[FileContent | FileId | DatasetSource, Field(discriminator="type")]
_CompletionsSource = Annotated[FileContent | FileId | StoredCompletions | DatasetSource, Field(discriminator="type")]
_ResponsesSource = Annotated[FileContent | FileId | ResponsesSource | DatasetSource, Field(discriminator="type")]
Source = FileContent | FileId | StoredCompletions | ResponsesSource | DatasetSource


# --- what is asked -----------------------------------------------------------------------------------------------------


class TemplateInput(Spec):
    type: Literal["template"]
    template: Many[TemplateMessage] = Field(min_length=1)


class ReferenceInput(Spec):
    type: Literal["item_reference"]
    item_reference: str = Field(min_length=1, max_length=512)


_Input = Annotated[TemplateInput | ReferenceInput, Field(discriminator="type")]
_Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class Sampling(Spec):
    """Sent to the model as they are; OpenAI spells the limit in two ways."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_completions_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: _Effort | None = None
    response_format: dict[str, Any] | None = None
    tools: Many[dict[str, Any]] | None = Field(default=None, max_length=128)

    def body(self) -> dict[str, Any]:
        given = self.model_dump(exclude_none=True)
        if (limit := given.pop("max_completions_tokens", None)) is not None:
            given.setdefault("max_completion_tokens", limit)
        return given


class _Text(Spec):
    format: dict[str, Any] | None = None


class ResponsesSampling(Spec):
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_completions_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: _Effort | None = None
    text: _Text | None = None

    def body(self) -> dict[str, Any]:
        given = self.model_dump(exclude_none=True, exclude={"text"})
        if (limit := given.pop("max_completions_tokens", None)) is not None:
            given.setdefault("max_completion_tokens", limit)
        form = self.text.format if self.text else None
        if form:
            kind = form.get("type")
            schema = {key: value for key, value in form.items() if key != "type"}
            given["response_format"] = {"type": kind, "json_schema": schema} if kind == "json_schema" else {"type": kind}
        return given


class JsonlRun(Spec):
    """Grades what the rows hold; no model is asked."""

    type: Literal["jsonl"]
    source: _JsonlSource

    @property
    def model(self) -> str | None:
        return None


class CompletionsRun(Spec):
    type: Literal["completions"]
    source: _CompletionsSource
    model: str | None = Field(default=None, min_length=1, max_length=256)
    input_messages: _Input | None = None
    sampling_params: Sampling = Sampling()


class ResponsesRun(Spec):
    type: Literal["responses"]
    source: _ResponsesSource
    model: str | None = Field(default=None, min_length=1, max_length=256)
    input_messages: _Input | None = None
    sampling_params: ResponsesSampling = ResponsesSampling()


RunSpec = JsonlRun | CompletionsRun | ResponsesRun
run_spec: TypeAdapter[RunSpec] = TypeAdapter(Annotated[RunSpec, Field(discriminator="type")])
