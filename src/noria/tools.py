"""Tools as OpenAI's two dialects spell them, and the way from one to the other.

Sources: the `tools` of https://platform.openai.com/docs/api-reference/chat/create and …/responses/create.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from noria.fields import RECORDED, Many

__all__ = [
    "ChatFunctionTool",
    "ChatNamedToolChoice",
    "FileSearchTool",
    "FunctionSpec",
    "FunctionTool",
    "HybridWeights",
    "NamedFunction",
    "NamedToolChoice",
    "RankingOptions",
    "chat_tool",
    "chat_tool_choice",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FunctionSpec(_Strict):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatFunctionTool(_Strict):
    """A function in chat completions: nested under `function`."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(_Strict):
    name: str


class ChatNamedToolChoice(_Strict):
    type: Literal["function"]
    function: NamedFunction


class FunctionTool(_Strict):
    """A function in responses: flat."""

    type: Literal["function"]
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class HybridWeights(_Strict):
    embedding_weight: float = Field(ge=0)
    text_weight: float = Field(ge=0)


class RankingOptions(_Strict):
    """Of the search tool and of searching a store; what its fields mean together is checked where it is searched."""

    ranker: Literal["none", "auto", "default-2024-11-15"] | None = Field(default=None, json_schema_extra=RECORDED)
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    hybrid_search: HybridWeights | None = None


class FileSearchTool(_Strict):
    type: Literal["file_search"]
    vector_store_ids: Many[str] = Field(min_length=1, max_length=8)
    max_num_results: int | None = Field(default=None, ge=1, le=50)
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions | None = None


class NamedToolChoice(_Strict):
    """`{"type": "function", "name": …}`, or a hosted tool by its type."""

    type: Literal["function", "file_search"]
    name: str | None = None


def chat_tool(tool: FunctionTool) -> dict[str, Any]:
    """A responses function as a chat completions tool."""
    function = tool.model_dump(exclude={"type"}, exclude_none=True)
    return {"type": "function", "function": function}


def chat_tool_choice(choice: str | NamedToolChoice | None) -> Any:
    """A responses `tool_choice` for the model, which sees functions only; None leaves it out."""
    if isinstance(choice, NamedToolChoice):
        return {"type": "function", "function": {"name": choice.name}} if choice.type == "function" else None
    return choice
