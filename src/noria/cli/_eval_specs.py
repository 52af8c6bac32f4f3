"""What `noria eval` sends: evals found by name, graders from options, rows from files, runs waited for."""

from __future__ import annotations

import json
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from noria.errors import InvalidRequest, NotFound

from ._api import Api
from ._watching import Work, follow

__all__ = ["Asking", "criteria_of", "find_eval", "get_run", "read_spec", "rows_source", "run_body", "wait_for"]

_ENDED = {"completed", "failed", "canceled"}


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked about each row."""

    input: str | None = None
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None


def find_eval(api: Api, which: str) -> dict[str, Any]:
    """An eval by id, or the newest of that name."""
    if which.startswith("eval_"):
        return api.get(f"/v1/evals/{quote(which, safe='')}")
    for row in api.pages("/v1/evals", order="desc"):
        if row["name"] == which:
            return row
    raise NotFound(f"No eval {which!r}.", hint="`noria eval list` shows them.")


def get_run(api: Api, run_id: str) -> dict[str, Any]:
    return api.get(f"/v1/noria/evals/runs/{quote(run_id, safe='')}")


def read_spec(path: Path) -> dict[str, Any]:
    """A JSON or TOML file with one object."""
    text = path.read_text(encoding="utf-8")
    try:
        found: Any = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"{path} cannot be read: {error}.") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{path} holds no object.")
    return found


def criteria_of(*, exact: bool, contains: bool, similar: list[str], python: Path | None) -> list[dict[str, Any]]:
    """Graders over rows that have `expected`."""
    texts = {"input": "{{sample.output_text}}", "reference": "{{item.expected}}"}
    found: list[dict[str, Any]] = []
    if exact:
        found.append({"type": "string_check", "name": "exact", "operation": "eq", **texts})
    if contains:
        found.append({"type": "string_check", "name": "contains", "operation": "ilike", **texts})
    for text in similar:
        metric, _, threshold = text.partition(":")
        try:
            least = float(threshold or 0.5)
        except ValueError:
            raise InvalidRequest(f"{text!r} is not METRIC:THRESHOLD.", hint="For example rouge_l:0.5") from None
        found.append({"type": "text_similarity", "name": metric, "evaluation_metric": metric, "pass_threshold": least, **texts})
    if python is not None:
        found.append({"type": "python", "name": python.stem, "source": python.read_text(encoding="utf-8")})
    return found


def rows_source(api: Api, data: Path | None, dataset: str | None, split: str | None, limit: int | None) -> dict[str, Any]:
    """Where the rows are: an uploaded file, or a dataset."""
    if (data is None) == (dataset is None):
        raise InvalidRequest("Give the rows: either --data FILE or --dataset NAME.")
    if dataset is not None:
        name, _, version = dataset.partition("@")
        if version and not version.isdigit():
            raise InvalidRequest(f"{dataset!r}: {version!r} is not a version's number.")
        source = {"type": "noria_dataset", "dataset": name, "split": split, "limit": limit}
        source |= {"version": int(version)} if version else {}
        return {key: value for key, value in source.items() if value is not None}
    if split is not None or limit is not None:
        raise InvalidRequest("--split and --limit are for datasets.")
    assert data is not None
    with tempfile.TemporaryDirectory() as folder:
        sent = Path(folder, data.name)
        sent.write_bytes(_as_rows(data))
        return {"type": "file_id", "id": api.send_file("/v1/files", sent, purpose="evals")["id"]}


def _as_rows(path: Path) -> bytes:
    """The file as OpenAI's rows: an object without `item` is an item."""
    lines: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            raise InvalidRequest(f"Line {number} of {path} is not JSON: {error}.") from None
        if not isinstance(row, dict):
            raise InvalidRequest(f"Line {number} of {path} is not an object.")
        lines.append(line if isinstance(row.get("item"), dict) else json.dumps({"item": row}, ensure_ascii=False))
    return "\n".join(lines).encode()


def run_body(source: dict[str, Any], model: str | None, asking: Asking, name: str | None) -> dict[str, Any]:
    more = {"name": name} if name else {}
    if model is None:
        return {"data_source": {"type": "jsonl", "source": source}, **more}
    sampling = {"temperature": asking.temperature, "max_completion_tokens": asking.max_tokens}
    data: dict[str, Any] = {
        "type": "completions",
        "source": source,
        "model": model,
        "sampling_params": {key: value for key, value in sampling.items() if value is not None},
    }
    if asking.input or asking.system or source["type"] != "noria_dataset":
        template = [{"role": "system", "content": asking.system}] if asking.system else []
        template.append({"role": "user", "content": asking.input or "{{item.input}}"})
        data["input_messages"] = {"type": "template", "template": template}
    return {"data_source": data, **more}


def wait_for(api: Api, run: dict[str, Any]) -> dict[str, Any]:
    """The run when it has ended, with a bar on the way. Ctrl-C leaves it going on."""
    path = f"/v1/evals/{run['eval_id']}/runs/{run['id']}"
    work = Work(path, run["name"] or run["id"], f"noria eval show {run['id']}")
    return follow(api, work, run, going=lambda row: row["status"] not in _ENDED, bar=_state)


def _state(run: dict[str, Any]) -> dict[str, Any]:
    counts = run["result_counts"]
    detail = f"{counts['passed']} passed, {counts['failed']} failed, {counts['errored']} errors"
    return {"completed": counts["total"], "total": run["noria"]["num_items"], "detail": detail}
