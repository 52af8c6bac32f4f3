"""The body of POST /v1/responses, strictly. Source: https://platform.openai.com/docs/api-reference/responses/create"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from noria.errors import InvalidRequest
from noria.fields import HINT, RECORDED, FewFaults, JsonObjectFormat, Many, Metadata, TextFormat
from noria.messages import InputItem
from noria.prompts import PromptReference
from noria.tools import FileSearchTool, FunctionTool, NamedToolChoice

__all__ = ["ResponseRequest"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    refused: ClassVar[dict[str, str]] = {}


class JsonSchemaFormat(_Strict):
    """Flat, where chat completions nest it under `json_schema`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    type: Literal["json_schema"]
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextOptions(_Strict):
    format: Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(_Strict):
    refused: ClassVar[dict[str, str]] = {"summary": "reasoning summaries are not built"}

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class ResponseStreamOptions(_Strict):
    include_obfuscation: bool | None = Field(default=None, json_schema_extra=RECORDED)


class NoriaOptions(_Strict):
    """What only Noria has. `answer`: let the model write (`generate`), quote passages verbatim (`extract`), or choose
    by the model's card and the question's language (`auto`)."""

    answer: Literal["auto", "generate", "extract"] = "auto"


class ResponseRequest(_Strict, FewFaults):
    """POST /v1/responses."""

    refused: ClassVar[dict[str, str]] = {
        "access_programs": "there are no access programs here",
        "background": "background responses are not built; stream instead",
        "background_options": "background responses are not built; stream instead",
        "context_management": "context management is not built; use `truncation`",
        "conversation": "the conversations API is not built; use `previous_response_id`",
        "image": "image generation is not built",
        "moderation": "moderation is not built",
        "prompt_cache_options": "the prefix cache needs no options",
    }

    model: str | None = Field(default=None, min_length=1, max_length=256, description="Needed unless the prompt names one.")
    input: str | Many[InputItem] | None = Field(default=None, description="May be left out where a prompt says it all.")
    prompt: PromptReference | None = None
    instructions: str | None = None
    previous_response_id: str | None = Field(default=None, max_length=128)
    tools: Many[Annotated[FunctionTool | FileSearchTool, Field(discriminator="type")]] | None = Field(
        default=None, max_length=128
    )
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = Field(default=None, ge=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: Many[Literal["file_search_call.results", "message.output_text.logprobs"]] | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = Field(default=None, json_schema_extra=RECORDED)
    user: str | None = Field(default=None, json_schema_extra=RECORDED)
    safety_identifier: str | None = Field(default=None, max_length=512, json_schema_extra=RECORDED)
    prompt_cache_key: str | None = Field(default=None, description=HINT, json_schema_extra=RECORDED)
    prompt_cache_retention: str | None = Field(default=None, description=HINT, json_schema_extra=RECORDED)
    service_tier: str | None = Field(default=None, description=HINT, json_schema_extra=RECORDED)
    noria: NoriaOptions | None = Field(default=None, description="Beyond OpenAI's: how to answer from documents.")

    @property
    def file_search(self) -> FileSearchTool | None:
        return next((tool for tool in self.tools or [] if isinstance(tool, FileSearchTool)), None)

    @property
    def functions(self) -> list[FunctionTool]:
        return [tool for tool in self.tools or [] if isinstance(tool, FunctionTool)]

    @property
    def keep(self) -> bool:
        return self.store is not False

    @property
    def needs_a_model(self) -> bool:
        """Whether no quotation of passages could do what is asked: functions to choose from, or a form to answer in."""
        form = self.text.format if self.text else None
        return (form is not None and form.type != "text") or (bool(self.functions) and not self.chooses("file_search"))

    def chooses(self, kind: Literal["function", "file_search"]) -> bool:
        """Whether `tool_choice` names a tool of this kind."""
        return isinstance(self.tool_choice, NamedToolChoice) and self.tool_choice.type == kind

    def includes(self, what: str) -> bool:
        return what in (self.include or ())

    def check(self) -> None:
        """What fields mean together. Raises InvalidRequest for those that could only be ignored."""
        searches = [place for place, tool in enumerate(self.tools or ()) if isinstance(tool, FileSearchTool)]
        if len(searches) > 1:
            raise InvalidRequest(
                f"tools[{searches[1]}] is a second file_search.",
                param=f"tools[{searches[1]}]",
                hint="Name all vector stores in one: a file_search takes up to eight.",
            )
        if self.tool_choice == "required" and not self.tools:
            raise InvalidRequest("tool_choice is 'required', and there are no tools.", param="tool_choice")
        if self.chooses("file_search") and not searches:
            raise InvalidRequest("tool_choice names file_search, which is not among the tools.", param="tool_choice")
        if isinstance(self.tool_choice, NamedToolChoice) and self.tool_choice.type == "function":
            name = self.tool_choice.name
            if name not in {tool.name for tool in self.functions}:
                raise InvalidRequest(
                    f"tool_choice names the function {name!r}, which is not among the tools.", param="tool_choice"
                )
