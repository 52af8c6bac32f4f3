"""The parts of the documentation that are made from the code: `python docs/_generate.py [--check]`.

A page says `<!-- generated: NAME -->` … `<!-- /generated -->`; what stands between is written here, from the server's own
bodies, settings, catalogue, errors and the benchmarks' result files. With `--check`
nothing is written and a stale page is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
_BLOCK = re.compile(r"(<!-- generated: ([a-z][a-z -]*[a-z]) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


# --- settings, catalogue, errors, formats -----------------------------------------------------------------------------


def settings() -> str:
    from noria.settings import Settings

    known = {"home": "`~/.noria`", "cache": "`~/.cache/noria`", "console_port": "`port` + 1", "aliases": "[a table](models.md)"}
    rows: list[list[str]] = []
    for name, field in Settings.model_fields.items():
        default = field.default
        plain = "" if default is None or default is PydanticUndefined or isinstance(default, SecretStr) else f"`{default}`"
        rows.append([f"`{name}`", f"`NORIA_{name.upper()}`", known.get(name, plain), field.description or ""])
    return table(["In `noria.toml`", "Variable", "Default", "What it does"], rows)


def providers() -> str:
    from noria.models import builtin_providers

    rows = [
        [f"`{name}`", spec.title, f"`{spec.base_url}`" if spec.base_url else "", _or(spec.base_url_env), _or(spec.key_env)]
        for name, spec in builtin_providers().items()
    ]
    return table(["Provider", "What it is", "Base URL", "Base URL from", "Key from"], rows)


def _or(text: str | None) -> str:
    return f"`{text}`" if text else ""


def aliases() -> str:
    from noria.models import Catalogue

    found = Catalogue(None, aliases=None, defaults={}).aliases  # type: ignore[arg-type]  # only its table is read
    return "\n".join(
        f"- the default {task} model: {', '.join(f'`{name}`' for name, target in found.items() if target == task)}"
        for task in ("chat", "embedding")
    )


def errors() -> str:
    from noria import errors as module

    found = (getattr(module, name) for name in module.__all__ if name != "NoriaError")
    rows = [
        [str(kind.status), f"`{kind.type}`", f"`{kind.default_code}`" if kind.default_code else "", f"`{kind.__name__}`"]
        for kind in sorted(found, key=lambda kind: (kind.status, kind.__name__))
    ]
    return table(["Status", "`type`", "Usual `code`", "In the code"], rows)


def formats() -> str:
    from noria.knowledge.loaders import supported_extensions

    return ", ".join(f"`.{extension}`" for extension in supported_extensions())


# --- fields -----------------------------------------------------------------------------------------------------------

_ACTED_ON = "implemented"
_FORWARDED = "forwarded"
_RECORDED = "recorded"
_REFUSED = "refused"


def _row(name: str, state: str, note: str = "") -> list[str]:
    return [f"`{name}`", state, note]


def _fields(body: Any, openai: Any, state: Callable[[str], str], engine: Any = None) -> str:
    """One row a field: the body's own, then those that are refused with a reason, then what OpenAI has beyond both."""
    theirs = set(get_type_hints(openai)) if openai is not None else set()
    theirs |= {"stream"} if "stream" in body.model_fields else set()
    rows: list[list[str]] = []
    for name, field in sorted(body.model_fields.items()):
        extra = field.json_schema_extra
        recorded = isinstance(extra, Mapping) and extra.get("noria") == _RECORDED
        found = _RECORDED if recorded else state(name)
        notes = [field.description or ""]
        if theirs and name not in theirs:
            notes.insert(0, "Beyond OpenAI's." if "Beyond OpenAI's" not in notes[0] else "")
        if found == _FORWARDED and engine is not None and name not in engine.model_fields:
            notes.append("The local engine refuses it (400).")
        rows.append(_row(name, found, " ".join(note for note in notes if note)))
    refused = getattr(body, "refused", {})
    rows += [_row(name, _REFUSED, f"{reason}.") for name, reason in sorted(refused.items()) if name not in body.model_fields]
    known = {*body.model_fields, *refused}
    rows += [_row(name, _REFUSED, "unknown field.") for name in sorted(theirs - known)]
    return table(["Field", "State", "Note"], rows)


def fields_chat() -> str:
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase

    from noria.engines.openvino._wire import ChatRequest
    from noria.server._chat_bodies import ChatBody

    return _fields(ChatBody, CompletionCreateParamsBase, _forwarded_but("metadata", "store"), ChatRequest)


def fields_completions() -> str:
    from openai.types.completion_create_params import CompletionCreateParamsBase

    from noria.engines.openvino._wire import CompletionRequest
    from noria.server._chat_bodies import CompletionBody

    return _fields(CompletionBody, CompletionCreateParamsBase, _forwarded_but(), CompletionRequest)


def fields_embeddings() -> str:
    from openai.types.embedding_create_params import EmbeddingCreateParams

    from noria.server._chat_bodies import EmbeddingBody

    return _fields(EmbeddingBody, EmbeddingCreateParams, _forwarded_but())


def _forwarded_but(*own: str) -> Callable[[str], str]:
    acted_on = {"model", "stream", "stream_options", *own}
    return lambda name: _ACTED_ON if name in acted_on else _FORWARDED


_FROM_RESPONSE_TO_MODEL = {
    "max_output_tokens",
    "parallel_tool_calls",
    "reasoning",
    "temperature",
    "text",
    "top_logprobs",
    "top_p",
}


def fields_responses() -> str:
    from openai.types.responses.response_create_params import ResponseCreateParamsBase

    from noria.responses import ResponseRequest

    def state(name: str) -> str:
        return _FORWARDED if name in _FROM_RESPONSE_TO_MODEL else _ACTED_ON

    return _fields(ResponseRequest, ResponseCreateParamsBase, state)


def fields_vector_stores() -> str:
    from openai.types import vector_store_create_params, vector_store_search_params, vector_store_update_params
    from openai.types.vector_stores import file_batch_create_params, file_create_params, file_update_params

    from noria.server import _vector_stores as bodies

    pairs = (
        (bodies.CreateStoreBody, vector_store_create_params.VectorStoreCreateParams),
        (bodies.UpdateStoreBody, vector_store_update_params.VectorStoreUpdateParams),
        (bodies.AttachFileBody, file_create_params.FileCreateParams),
        (bodies.UpdateFileBody, file_update_params.FileUpdateParams),
        (bodies.BatchBody, file_batch_create_params.FileBatchCreateParams),
        (bodies.SearchBody, vector_store_search_params.VectorStoreSearchParams),
    )
    return "\n\n".join(
        f"### `{(body.__doc__ or '').strip().rstrip('.')}`\n\n{_fields(body, _without_path(openai), lambda _: _ACTED_ON)}"
        for body, openai in pairs
    )


def fields_fine_tuning() -> str:
    from openai.types.fine_tuning.job_create_params import JobCreateParams

    from noria.server._fine_tuning import CreateTuningBody

    return _fields(CreateTuningBody, JobCreateParams, lambda _: _ACTED_ON)


def _without_path(params: Any) -> Any:
    """The client's own parameters without those that stand in the path."""
    hints = {name: hint for name, hint in get_type_hints(params).items() if name != "vector_store_id"}
    return type(params.__name__, (), {"__annotations__": hints})


def fields_tools() -> str:
    """Which of OpenAI's built-in tools a response takes."""
    from openai.types.responses import tool_param

    from noria.responses import ResponseRequest

    ours = {"function", "file_search"}
    assert all(name in str(ResponseRequest.model_fields["tools"].annotation) for name in ("FunctionTool", "FileSearchTool"))
    kinds = sorted({kind for part in get_args(tool_param.ToolParam) for kind in get_args(get_type_hints(part).get("type"))})
    return table(["Tool", "State"], [[f"`{kind}`", _ACTED_ON if kind in ours else _REFUSED] for kind in kinds])


# --- benchmarks -------------------------------------------------------------------------------------------------------

_LISTED, _WIDE = 5, 12
"""More figures than this make a table; a table of more columns than this is turned, if it has few lines."""
_FACTS = ("facts", "machine", "settings", "versions", "commit", "python", "taken_at", "benchmark", "data")


def benchmark(name: str) -> str:
    """Every result file of this benchmark as tables, with what it was measured on."""
    import json

    files = sorted(RESULTS.glob(f"{name}*.json"))
    if not files:
        return "Not measured yet."
    parts: list[str] = []
    for file in files:
        result = json.loads(file.read_text())
        parts.append(f"From `benchmarks/results/{file.name}`:")
        parts += [found for key, value in result.items() if key not in _FACTS for found in _shown(key, value)]
        found = ((name, value) for key in _FACTS if key in result for name, value in _flat("", result[key]))
        facts = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in found if "://" not in value)
        parts.append(f"<small>{facts}</small>")
    return "\n\n".join(parts)


def _shown(key: str, value: Any) -> Iterator[str]:
    rows: list[tuple[str, Mapping[str, Any]]] = []
    if isinstance(value, Mapping) and value and all(isinstance(item, Mapping) for item in value.values()):
        rows = [(str(name), item) for name, item in value.items()]
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        rows = [("", item) for item in value]
    if not rows:
        if value not in (None, {}, []):
            flat = list(_flat(key, value))
            if len(flat) > _LISTED:
                yield table([key, ""], [[name.removeprefix(f"{key}."), item] for name, item in flat])
            else:
                parts = (item if name == key else f"{name.removeprefix(f'{key}.')} {item}" for name, item in flat)
                yield f"- `{key}`: " + ", ".join(parts)
        return
    flat = [(name, dict(_flat("", item))) for name, item in rows]
    columns = list(dict.fromkeys(column for _, row in flat for column in row))
    named = any(name for name, _ in flat)
    if len(columns) > _WIDE and len(columns) > 2 * len(flat):  # reads better turned: a line for each figure
        first, *others = columns if not named else ["", *columns]
        head = [key, *(name if named else row.get(first, "") for name, row in flat)]
        yield table(head, [[column, *(row.get(column, "") for _, row in flat)] for column in others])
        return
    head = ([key] if named else []) + columns
    yield table(head, [([name] if named else []) + [row.get(column, "") for column in columns] for name, row in flat])


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and {"value", "low", "high"} <= value.keys():
        yield path, f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), item)
    elif isinstance(value, list):
        if value and all(not isinstance(item, list | Mapping) for item in value):
            yield path, " / ".join(_figure(item) for item in value)
    elif value is not None:
        yield path, _figure(value)


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# --- pages ------------------------------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "providers": providers,
    "aliases": aliases,
    "errors": errors,
    "formats": formats,
    "fields chat": fields_chat,
    "fields completions": fields_completions,
    "fields embeddings": fields_embeddings,
    "fields responses": fields_responses,
    "fields vector stores": fields_vector_stores,
    "fields fine-tuning": fields_fine_tuning,
    "fields tools": fields_tools,
}


def make(name: str) -> str:
    if name.startswith("benchmark "):
        return benchmark(name.removeprefix("benchmark "))
    return MAKERS[name]()


def render(page: str) -> str:
    """The page with its generated parts made anew."""
    return _BLOCK.sub(lambda match: f"{match[1]}\n{make(match[2])}\n\n{match[3]}", page)


def main() -> int:
    stale: list[Path] = []
    for path in sorted(DOCS.rglob("*.md")):
        page = path.read_text(encoding="utf-8")
        made = render(page)
        if made != page:
            stale.append(path)
            if "--check" not in sys.argv:
                path.write_text(made, encoding="utf-8")
    for path in stale:
        print(f"{path.relative_to(DOCS.parent)} {'is stale' if '--check' in sys.argv else 'written'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
