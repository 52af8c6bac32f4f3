"""The vocabulary of prompt templates: blocks, variables, rendering. Standard library and pydantic only.

A template has four blocks that answer what a prompt must say (who is to answer, what it should know, what it should do, what the
answer must look like), few-shot examples and free messages. The blocks become one system message, for small models know only one.
Variables are `{{name}}`; their values are text and never looked into again, so that a user's `{{x}}` stays what it is. `\\{{`
is a literal `{{`. Knows nothing about where templates are kept.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from .errors import InvalidRequest, UnsupportedField

__all__ = [
    "BLOCKS",
    "Example",
    "PromptReference",
    "PromptResolver",
    "RenderedPrompt",
    "Template",
    "TemplateMessage",
    "expand",
    "names_in",
]

Block = Literal["role", "context", "task", "output"]
BLOCKS: tuple[Block, ...] = ("role", "context", "task", "output")
_NAME = r"[^\W\d][\w.-]{0,63}"
_MARK = re.compile(r"\\\{\{|\{\{\s*(?P<name>" + _NAME + r")\s*\}\}|\{\{(?P<rest>.{0,40})", re.DOTALL)
_Text = Annotated[str, Field(max_length=200_000)]
_MOST_FILLED = 8 * 2**20
"""Characters that values add to a prompt, more than any model reads: a long one, named a thousand times, takes all memory."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Example(_Strict):
    """A question and the answer it should get, shown to the model as turns before the real ones."""

    input: _Text
    output: _Text


class TemplateMessage(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: _Text


class Template(_Strict):
    """A prompt with holes. Rendered: one system message of the blocks, the examples as turns, then the free messages."""

    role: _Text = Field(default="", description="Who answers: `You are the support desk of {{company}}.`")
    context: _Text = Field(default="", description="What it should know.")
    task: _Text = Field(default="", description="What it should do.")
    output: _Text = Field(default="", description="What the answer must look like.")
    examples: tuple[Example, ...] = Field(default=(), max_length=256)
    messages: tuple[TemplateMessage, ...] = Field(default=(), max_length=256)
    model: str | None = Field(default=None, min_length=1, max_length=256, description="The model, where a request names none.")

    def parts(self) -> Iterator[tuple[str, str]]:
        """Every text of it with its place (`task`, `examples[0].input`), in the order in which it is rendered."""
        for block in BLOCKS:
            yield block, getattr(self, block)
        for number, example in enumerate(self.examples):
            yield f"examples[{number}].input", example.input
            yield f"examples[{number}].output", example.output
        for number, message in enumerate(self.messages):
            yield f"messages[{number}].content", message.content

    def variables(self) -> tuple[str, ...]:
        """The names of its variables, in the order in which they first occur. Raises InvalidRequest on a broken `{{`."""
        return tuple(dict.fromkeys(name for place, text in self.parts() for name in names_in(text, param=f"template.{place}")))

    def check(self) -> Template:
        """This template, if it says anything and its `{{…}}` are whole. Raises InvalidRequest."""
        if not any(text.strip() for _, text in self.parts()):
            raise InvalidRequest("The template is empty.", param="template", hint=f"Fill one of {', '.join(BLOCKS)} or messages.")
        self.variables()
        return self

    def render(self, values: Mapping[str, Any] | None = None, *, param: str = "variables") -> list[dict[str, str]]:
        """Chat messages with each variable replaced. Raises InvalidRequest for a missing, unknown, unfit or too long value."""
        given = _texts(values or {}, param)
        _compare(self.variables(), given, param)

        length = 0

        def value(name: str) -> str:
            nonlocal length
            length += len(given[name])
            if length > _MOST_FILLED:
                raise InvalidRequest(
                    f"With {name} the prompt is longer than {_MOST_FILLED:,} characters.",
                    param=f"{param}.{name}",
                    code="prompt_too_long",
                    hint="Name a long value once.",
                )
            return given[name]

        def filled(text: str) -> str:
            return expand(text, value)

        blocks = [text for block in BLOCKS if (text := filled(getattr(self, block)).strip())]
        rendered = [{"role": "system", "content": "\n\n".join(blocks)}] if blocks else []
        for example in self.examples:
            rendered.append({"role": "user", "content": filled(example.input)})
            rendered.append({"role": "assistant", "content": filled(example.output)})
        rendered += [{"role": message.role, "content": filled(message.content)} for message in self.messages]
        return rendered

    def lines(self) -> list[str]:
        """It as text, for people to compare: each part under its name."""
        found: list[str] = [f"model: {self.model}"] if self.model else []
        for place, text in self.parts():
            role = self.messages[int(place[9 : place.index("]")])].role if place.endswith("].content") else None
            if text:
                found += [f"[{place} of the {role}]" if role else f"[{place}]", *text.splitlines()]
        return found

    def diff(self, other: Template, names: tuple[str, str]) -> str:
        """What changes from this template to another, as a unified diff; empty where they are equal."""
        return "\n".join(difflib.unified_diff(self.lines(), other.lines(), *names, lineterm="", n=2))


class PromptReference(_Strict):
    """OpenAI's `prompt` parameter: which stored prompt, which version of it, with which values.

    Source: https://platform.openai.com/docs/api-reference/responses/create#responses-create-prompt
    """

    id: str = Field(min_length=1, max_length=256, description="Id of the prompt (`pmpt_…`), or its name.")
    version: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="A version's number, or a label; default: the label `production`, else the newest version.",
    )
    variables: dict[str, Any] | None = Field(default=None, max_length=256, description="The value of each variable: text.")


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt made ready for a model: which version it was and the messages it became."""

    prompt_id: str
    name: str
    version: int
    messages: list[dict[str, str]]
    model: str | None = None

    @property
    def header(self) -> str:
        """`pmpt_…@3`: what answers and traces say ran."""
        return f"{self.prompt_id}@{self.version}"


class PromptResolver(Protocol):
    """Finds a stored prompt and renders it; what runs prompts (responses, evals, datasets) is given one."""

    async def render(self, project_id: str, reference: PromptReference) -> RenderedPrompt:
        """Raises NotFound for an unknown prompt, version or label, InvalidRequest for unfit variables."""
        ...


def expand(text: str, value: Callable[[str], str]) -> str:
    """`text` with each `{{name}}` replaced by `value(name)`, once: what comes in is not looked into again."""

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        return value(name) if name is not None else match[0].removeprefix("\\")

    return _MARK.sub(replace, text)


def names_in(text: str, *, param: str | None = None) -> list[str]:
    """The names of the variables in a text. Raises InvalidRequest on a `{{` that is not one and not escaped."""
    found: list[str] = []
    for match in _MARK.finditer(text):
        if match["rest"] is not None:
            shown = match["rest"].splitlines()[0] if match["rest"] else ""
            raise InvalidRequest(
                f"{{{{{shown} at character {match.start()} is not a variable.",
                param=param,
                code="invalid_template",
                hint="Write {{name}} with letters, digits, _, . or -, or \\{{ for two braces.",
            )
        if match["name"] is not None:
            found.append(match["name"])
    return found


def _texts(values: Mapping[str, Any], param: str) -> dict[str, str]:
    return {name: _text(value, f"{param}.{name}") for name, value in values.items()}


def _text(value: Any, param: str) -> str:
    """A value as text: a string, or OpenAI's `input_text` part."""
    if isinstance(value, str):
        return value
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "input_text" and isinstance(value.get("text"), str) and len(value) == 2:
        return value["text"]
    if kind in {"input_image", "input_file"}:
        raise UnsupportedField(f"{param} is an {kind}: a prompt's variables are text here.", param=param)
    raise InvalidRequest(f"{param} = {repr(value)[:80]} is not text.", param=param, code="invalid_value", hint="Give a string.")


def _compare(wanted: tuple[str, ...], given: Mapping[str, str], param: str) -> None:
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    if unknown:
        near = difflib.get_close_matches(unknown[0], missing or wanted, 1)
        has = f"It has: {', '.join(wanted)}." if wanted else "It has no variables."
        raise InvalidRequest(
            f"The prompt has no variable {unknown[0]!r}.",
            param=f"{param}.{unknown[0]}",
            code="unknown_variable",
            hint=f"Did you mean {near[0]!r}? {has}" if near else has,
        )
    if missing:
        raise InvalidRequest(
            f"The prompt's variable {missing[0]!r} has no value.",
            param=param,
            code="missing_variable",
            hint=f"Give a value for: {', '.join(missing)}.",
        )
