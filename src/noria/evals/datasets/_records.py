"""Records of the formats that people keep training data in, as a row's content.

Noria's own, OpenAI's chat and preference lines, Alpaca, ShareGPT (as LLaMA-Factory spells it), and tables with a column of
inputs and one of outputs. The format is told from each record's fields. Sources:
https://platform.openai.com/docs/guides/supervised-fine-tuning, https://github.com/tatsu-lab/stanford_alpaca,
https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import orjson

from noria.errors import InvalidRequest

from ._content import check_content

__all__ = ["FORMATS", "Format", "RecordFormat", "read_record", "record_format"]

RecordFormat = Literal["noria", "openai", "dpo", "alpaca", "sharegpt", "table"]
Format = Literal["noria", "openai", "dpo", "alpaca", "sharegpt", "csv", "parquet"]
FORMATS: tuple[str, ...] = get_args(Format)

_INPUTS = ("input", "prompt", "question", "query", "text", "user", "instruction")
_OUTPUTS = ("expected", "output", "completion", "answer", "response", "assistant", "ideal", "label", "target")
_SYSTEMS = ("system", "system_prompt")
_OWN = {"tools", "expected", "chosen", "rejected", "metadata"}
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_Record = Mapping[str, Any]


def record_format(record: _Record) -> RecordFormat:
    """Which format a record is in, by its fields."""
    if isinstance(record.get("input"), dict) or "preferred_output" in record:
        return "dpo"
    if "conversations" in record:
        return "sharegpt"
    if "messages" in record:
        own = set(record) - {"messages"}
        return "openai" if isinstance(record["messages"], list) and not own - {"tools", "parallel_tool_calls"} else "noria"
    return "alpaca" if "instruction" in record else "table"


def read_record(record: _Record, format: RecordFormat | None = None) -> dict[str, Any]:
    """The content of a row. Raises InvalidRequest."""
    match format or record_format(record):
        case "noria":
            return _noria(record)
        case "openai":
            return _openai(record)
        case "dpo":
            return _dpo(record)
        case "alpaca":
            return _alpaca(record)
        case "sharegpt":
            return _sharegpt(record)
        case "table":
            return _table(record)


def _noria(record: _Record) -> dict[str, Any]:
    if isinstance(record.get("messages"), str):  # a cell of a table
        return _table(record)
    known = {"messages", *_OWN}
    extra = {key: value for key, value in record.items() if key not in known and key != "parallel_tool_calls"}
    given = {key: value for key, value in record.items() if key in known}
    if not set(record) & (_OWN - {"tools", "metadata"}):  # a chat line with columns of its own beside the messages
        given = _split_answer(given)
    return check_content(_with_metadata(given, extra))


def _openai(record: _Record) -> dict[str, Any]:
    unknown = sorted(set(record) - {"messages", "tools", "parallel_tool_calls"})
    if unknown:
        raise InvalidRequest(f"A chat line has no field {unknown[0]!r}.", param=unknown[0])
    return check_content(_split_answer({key: record[key] for key in ("messages", "tools") if record.get(key) is not None}))


def _split_answer(given: dict[str, Any]) -> dict[str, Any]:
    """The last message, if it is the assistant's and not the only one, is what is expected."""
    messages = given.get("messages")
    if isinstance(messages, list) and len(messages) > 1:
        last: Any = messages[-1]
        if isinstance(last, dict) and cast("dict[str, Any]", last).get("role") == "assistant":
            return {**given, "messages": messages[:-1], "expected": last}
    return given


def _dpo(record: _Record) -> dict[str, Any]:
    source = record.get("input")
    if not isinstance(source, dict):
        raise InvalidRequest("A preference line needs `input`, an object with messages.", param="input")
    given = cast("dict[str, Any]", source)
    content = {"messages": given.get("messages"), "tools": given.get("tools")}
    content["chosen"] = _one(record.get("preferred_output"), "preferred_output")
    content["rejected"] = _one(record.get("non_preferred_output"), "non_preferred_output")
    return check_content(content)


def _one(given: Any, path: str) -> Any:
    """The answer in a list of messages, or the answer itself."""
    if isinstance(given, list) and given:
        return cast("list[Any]", given)[-1]
    if given is None or given == []:
        raise InvalidRequest(f"{path} is missing.", param=path)
    return given


def _alpaca(record: _Record) -> dict[str, Any]:
    given = {key: value for key, value in record.items() if value is not None}
    messages: list[Any] = []
    if system := given.pop("system", ""):
        messages.append({"role": "system", "content": system})
    for turn in given.pop("history", None) or []:
        if not isinstance(turn, list | tuple) or len(cast("Sequence[Any]", turn)) != 2:
            raise InvalidRequest("history must be a list of pairs.", param="history")
        asked, said = cast("Sequence[Any]", turn)
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    asked = "\n".join(str(part) for part in (given.pop("instruction", ""), given.pop("input", "")) if part)
    if not asked:
        raise InvalidRequest("instruction is empty.", param="instruction")
    messages.append({"role": "user", "content": asked})
    content: dict[str, Any] = {"messages": messages}
    for name, field in (("expected", "output"), ("chosen", "chosen"), ("rejected", "rejected")):
        if (value := given.pop(field, None)) not in (None, ""):
            content[name] = _one(value, field)
    return check_content(_with_metadata(content, given))


def _sharegpt(record: _Record) -> dict[str, Any]:
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise InvalidRequest("conversations must be a list that is not empty.", param="conversations")
    messages = [{"role": "system", "content": record["system"]}] if record.get("system") else []
    for index, turn in enumerate(cast("list[Any]", turns)):
        _add_turn(messages, turn, f"conversations[{index}]")
    content: dict[str, Any] = {"messages": messages}
    if record.get("tools"):
        content["tools"] = _sharegpt_tools(record["tools"])
    if record.get("chosen") is not None or record.get("rejected") is not None:
        for name in ("chosen", "rejected"):
            answer: list[Any] = []
            _add_turn(answer, _one(record.get(name), name), name)
            content[name] = answer[0]
    else:
        content = _split_answer(content)
    known = {"conversations", "system", "tools", "chosen", "rejected"}
    return check_content(_with_metadata(content, {key: value for key, value in record.items() if key not in known}))


def _add_turn(messages: list[Any], turn: Any, path: str) -> None:
    if not isinstance(turn, dict):
        raise InvalidRequest(f"{path} is not an object.", param=path)
    said = cast("dict[str, Any]", turn)
    role, value = said.get("from", said.get("role")), said.get("value", said.get("content"))
    if role == "function_call":
        messages.append({"role": "assistant", "content": None, "tool_calls": _calls(value, len(messages), path)})
    elif role in ("observation", "tool"):
        messages.append({"role": "tool", "tool_call_id": _open_call(messages, path), "content": value})
    elif role in _SHAREGPT_ROLES:
        messages.append({"role": _SHAREGPT_ROLES[role], "content": value})
    else:
        raise InvalidRequest(f"{path}.from = {role!r} is no speaker that ShareGPT knows.", param=f"{path}.from")


def _open_call(messages: Sequence[Any], path: str) -> str:
    """The id of the newest turn's first call that nothing has answered: what calls brought stands in their order."""
    results = 0
    while results < len(messages) and messages[-1 - results]["role"] == "tool":
        results += 1
    calls: Any = messages[-1 - results].get("tool_calls") if results < len(messages) else None
    if results >= len(calls or ()):
        raise InvalidRequest(f"{path} is what a call brought, but no call stands before it.", param=f"{path}.from")
    return calls[results]["id"]


def _calls(value: Any, place: int, path: str) -> list[Any]:
    found = _json(value)
    calls = cast("list[Any]", found) if isinstance(found, list) else [found]
    made: list[Any] = []
    for index, call in enumerate(calls):
        named = cast("dict[str, Any]", call) if isinstance(call, dict) else {}
        if not isinstance(named.get("name"), str):
            raise InvalidRequest(f"{path}.value is no function call.", param=f"{path}.value")
        arguments = named.get("arguments", {})
        packed = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
        function = {"name": named["name"], "arguments": packed}
        made.append({"id": f"call_{place}_{index}", "type": "function", "function": function})
    return made


def _sharegpt_tools(given: Any) -> list[Any]:
    found = _json(given)
    if not isinstance(found, list):
        raise InvalidRequest("tools is no list of functions.", param="tools")
    return [
        tool if isinstance(tool, dict) and "function" in tool else {"type": "function", "function": tool}
        for tool in cast("list[Any]", found)
    ]


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None


def _table(record: _Record) -> dict[str, Any]:
    """A line of a table. Cells of Noria's own columns may hold JSON; other columns become metadata."""
    left = {key: value for key, value in record.items() if value not in (None, "")}
    folded = {key.lower(): key for key in left}
    content: dict[str, Any] = {"messages": _table_messages(left, folded)}
    if (tools := left.pop("tools", None)) is not None:
        content["tools"] = _cell(tools, "tools")
    if (whole := left.pop("expected_message", None)) is not None:
        content["expected"] = _cell(whole, "expected_message")
    elif (found := _take(left, folded, _OUTPUTS)) is not None:
        content["expected"] = found if isinstance(found, str | dict) else _last(found)
    for name in ("chosen", "rejected"):
        whole = left.pop(f"{name}_message", None)
        value = left.pop(name, None)
        if whole is not None or value is not None:
            content[name] = _cell(whole, f"{name}_message") if whole is not None else _last(value)
    own = left.pop("metadata", None)
    if own is not None:
        content["metadata"] = _cell(own, "metadata") if isinstance(own, str) else own
    return check_content(_with_metadata(content, left))


def _table_messages(left: dict[str, Any], folded: dict[str, str]) -> list[Any]:
    if (whole := left.pop("messages", None)) is not None:
        return _cell(whole, "messages") if isinstance(whole, str) else whole
    messages: list[Any] = []
    if (system := _take(left, folded, _SYSTEMS)) is not None:
        messages.append({"role": "system", "content": str(system)})
    asked = _take(left, folded, _INPUTS)
    if asked is None:
        raise InvalidRequest(
            f"No column holds an input; there are {', '.join(sorted(left)[:8]) or 'none'}.",
            param="input",
            hint=f"One of {', '.join(_INPUTS)} or messages is looked for.",
        )
    return [*messages, *asked] if isinstance(asked, list) else [*messages, {"role": "user", "content": str(asked)}]


def _last(value: Any) -> Any:
    """The answer in a column: a text, a message, or a conversation that ends with it."""
    if isinstance(value, list) and value:
        return cast("list[Any]", value)[-1]
    return value if isinstance(value, dict) else str(value)


def _take(left: dict[str, Any], folded: dict[str, str], names: Sequence[str]) -> Any:
    for name in names:
        if name in folded and folded[name] in left:
            return left.pop(folded[name])
    return None


def _cell(value: Any, path: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{path} does not hold JSON: {error}.", param=path) from None


def _with_metadata(content: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in extra.items() if value is not None}
    if not kept:
        return content
    metadata = content.get("metadata") or {}
    return {**content, "metadata": {**kept, **metadata} if isinstance(metadata, dict) else metadata}
