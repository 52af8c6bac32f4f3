"""Renders a conversation with the model's own chat template, in Jinja's sandbox.

Knows nothing about tokens. Templates that know no tools get them written into the system message, past calls into the
assistant's text and results into the user's turn, all in the syntax of `_tools`.

Source: https://huggingface.co/docs/transformers/chat_templating (the functions and settings templates rely on).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence, Sized
from typing import Any

import jinja2
import jinja2.meta
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from noria.engines.openvino._tools import Tool, describe_tools, written_call
from noria.errors import InvalidRequest

__all__ = ["ChatTemplate"]

Message = dict[str, Any]


MAX_TEMPLATE_CHARS = 256 * 1024
"""The longest that are known have 30,000."""
_MAX_REPEATED = 1_000_000
_MAX_BITS = 10_000


class _Environment(ImmutableSandboxedEnvironment):
    """Templates come with models of strangers: none makes a text or a number of any size with one operator."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for what, times in ((left, right), (right, left)):
                if isinstance(what, Sized) and isinstance(times, int) and len(what) * times > _MAX_REPEATED:
                    raise SecurityError(f"{len(what)} characters or items {times} times are too many")
        elif isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _MAX_BITS:
            raise SecurityError("a power is too large")
        return super().call_binop(context, operator, left, right)


class ChatTemplate:
    """`messages` are dictionaries with role and text content, `tool_calls` on assistants, `tool_call_id` on tools."""

    def __init__(self, source: str | None, bos_token: str | None, eos_token: str | None) -> None:
        if source and len(source) > MAX_TEMPLATE_CHARS:
            raise InvalidRequest(
                f"The model's chat template has {len(source):,} characters, more than {MAX_TEMPLATE_CHARS:,}.",
                code="chat_template_too_long",
            )
        # Not optimised: what a template makes of constants would be made while it is loaded, however much it is.
        environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], optimized=False)
        environment.filters["tojson"] = _tojson
        functions: dict[str, Any] = {"raise_exception": _refuse, "strftime_now": _strftime_now}
        self._template = environment.from_string(source, globals=functions) if source else None
        self._names = {"bos_token": bos_token or "", "eos_token": eos_token or ""}
        used = jinja2.meta.find_undeclared_variables(environment.parse(source)) if source else set[str]()
        self.knows_tools = "tools" in used

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        tool_required: bool = False,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt, up to where the assistant's answer begins; or the chat alone."""
        if self._template is None:
            raise InvalidRequest("This model has no chat template.", hint="Use /v1/completions.", code="no_chat_template")
        names: dict[str, Any] = {**self._names, "add_generation_prompt": add_generation_prompt}
        if self.knows_tools:
            turns = [_native(message) for message in messages]
            names["tools"] = [tool.to_dict() for tool in tools] or None
        else:
            turns = _plain(messages, describe_tools(tools, required=tool_required) if tools else "")
        try:
            return self._template.render(messages=turns, **names)
        except jinja2.TemplateError as error:
            raise InvalidRequest(f"The model's chat template refuses these messages: {error}.", param="messages") from error

    def answer(self, turn: Message) -> str:
        """An assistant's turn as the model itself writes it: the calls in the syntax that its grammar holds it to."""
        return _spoken(turn)


def _native(message: Message) -> Message:
    """Arguments as objects, which is what templates print."""
    turn = {**message, "role": "system" if message["role"] == "developer" else message["role"]}
    if "tool_calls" in message:
        turn["tool_calls"] = [{**call, "function": _with_object(call["function"])} for call in message["tool_calls"]]
    return turn


def _with_object(function: Message) -> Message:
    return {**function, "arguments": _parsed(function["arguments"])}


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _plain(messages: Sequence[Message], tools_text: str) -> list[Message]:
    """The conversation with roles system, user and assistant alone."""
    turns: list[Message] = []
    for message in messages:
        role, text = message["role"], message["content"]
        if role == "developer":
            role = "system"
        elif role == "tool":
            role, text = "user", f"<tool_response>\n{text}\n</tool_response>"
            if turns and turns[-1]["role"] == "user" and turns[-1].get("results"):
                turns[-1]["content"] += "\n" + text
                continue
            turns.append({"role": role, "content": text, "results": True})
            continue
        turns.append({"role": role, "content": _spoken(message)})
    if tools_text:
        if turns and turns[0]["role"] == "system":
            turns[0] = {"role": "system", "content": f"{turns[0]['content']}\n\n{tools_text}"}
        else:
            turns.insert(0, {"role": "system", "content": tools_text})
    return turns


def _spoken(message: Message) -> str:
    text: str = message["content"]
    for call in message.get("tool_calls", ()):
        text = f"{text}\n" if text else ""
        text += written_call(call["function"]["name"], call["function"]["arguments"])
    return text


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
