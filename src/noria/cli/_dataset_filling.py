"""What fills a dataset from the command line, and what comes out of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer

from ._api import Api
from ._command import confirm, target
from ._connection import connect
from ._dataset_views import dataset_path
from ._show import note, print_json, size
from ._trace_views import moment
from ._values import parse_pairs
from ._watching import watch_job

__all__ = ["collect_rows", "delete_dataset", "export_rows", "import_file", "remove_rows"]


def _made(api: Api, dataset: str, *, create: bool) -> str:
    """The path of the dataset, which is made first where that is wanted."""
    path = dataset_path(dataset)
    if create and api.find(path) is None:
        api.post("/v1/noria/datasets", {"name": dataset})
        note(f"Created the dataset {dataset}.")
    return path


def import_file(dataset: str, file: Path, options: Mapping[str, Any], *, create: bool) -> None:
    with connect() as api:
        path = _made(api, dataset, create=create)
        reply = api.send_file(f"{path}/import", file, **options)
        report = _report(api, reply, f"Importing {file.name}")
    _tell(dataset, report, "lines")
    if report["failed"]:
        raise typer.Exit(1)


def collect_rows(dataset: str, source: str, options: Mapping[str, Any]) -> None:
    with connect() as api:
        path = _made(api, dataset, create=options["create"])
        reply = api.post(f"{path}/collect", _order(source, options))
        report = _report(api, reply, f"Collecting {source}")
    _tell(dataset, report, "records")


def _order(source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a collection: filters that the source has none of are refused by the server, which names them."""
    names = ("model", "label", "rating", "author", "name", "text")
    filters: dict[str, Any] = {name: options[name] for name in names if options[name] is not None}
    if source == "feedback" and "model" in filters:
        filters["models"] = [filters.pop("model")]
    filters |= {key: moment(options[name]) for key, name in (("from", "since"), ("to", "until")) if options[name]}
    if options["metadata"]:
        filters["metadata"] = parse_pairs(options["metadata"])
    body: dict[str, Any] = {source: filters, "note": options["note"], "expect": "nothing" if options["no_answers"] else "answer"}
    if source == "feedback":
        body["policy"] = {"label_as_expected": options["labels"], "min_score": options["min_score"]}
    return body


def _report(api: Api, reply: dict[str, Any], title: str) -> dict[str, Any]:
    return reply if reply["job"] is None else {**reply, **watch_job(api, reply["job"], title)["detail"]}


def _tell(dataset: str, report: Mapping[str, Any], unit: str) -> None:
    if target().json:
        print_json(report)
        return
    said = [f"{report['considered']:,} {unit}", f"{report['added']:,} rows added", f"{report['duplicates']:,} there already"]
    said += [f"{report['failed']:,} failed"] if report["failed"] else []
    said += [f"{number:,} {reason.replace('_', ' ')}" for reason, number in report["skipped"].items()]
    at = f"{dataset} is at version {report['version']}." if report["version"] else f"{dataset} is still empty."
    print(f"{', '.join(said)}. {at}")
    for error in report["errors"]:
        place = f"line {error['line']}" if "line" in error else error["id"]
        note(f"{place}: {error['message']}")
    if report["failed"] > len(report["errors"]):
        note(f"… and {report['failed'] - len(report['errors']):,} more.")


def remove_rows(dataset: str, row_ids: Sequence[str], remark: str) -> None:
    with connect() as api:
        reply = api.post(f"{dataset_path(dataset)}/rows", {"remove": list(row_ids), "note": remark})
    print_json(reply) if target().json else print(f"{reply['removed']} rows removed. {dataset} is at version {reply['version']}.")


def export_rows(dataset: str, file: Path | None, options: Mapping[str, Any], *, upload: bool) -> None:
    given = {key: value for key, value in options.items() if value is not None}
    with connect() as api:
        path = f"{dataset_path(dataset)}/export"
        if upload:
            row = api.post(path, given)
            print_json(row) if target().json else print(f"{row['filename']} is {row['id']} ({_written(row)}).")
            return
        if file == Path("-"):
            api.download(path, sys.stdout.buffer, **given)
            sys.stdout.buffer.flush()
            return
        where = file or Path(_default_name(api, dataset, given))
        partial = where.with_name(where.name + ".part")
        try:
            with partial.open("wb") as out:
                written = api.download(path, out, **given)
            partial.replace(where)
        finally:
            partial.unlink(missing_ok=True)
    print_json({"file": str(where), "bytes": written}) if target().json else print(f"Wrote {where} ({size(written)}).")


def _written(row: Mapping[str, Any]) -> str:
    origin = row.get("origin") or {}
    said = [size(row["bytes"])]
    if "written" in origin:
        said.append(f"{origin['written']} rows")
    if origin.get("left_out"):
        said.append(f"{origin['left_out']} left out: nothing in them that {origin['format']} has words for, or nothing to learn")
    return ", ".join(said)


def _default_name(api: Api, dataset: str, given: Mapping[str, Any]) -> str:
    row = api.get(dataset_path(dataset))
    suffix = given["format"] if given["format"] in {"csv", "parquet"} else "jsonl"
    split = f"-{given['split']}" if "split" in given else ""
    return f"{row['name']}@{given.get('version', row['head'])}{split}.{suffix}"


def delete_dataset(dataset: str, *, force: bool, yes: bool) -> None:
    with connect() as api:
        row = api.get(dataset_path(dataset))
        confirm(f"Delete the dataset {row['name']} with its {row['head']} versions?", yes=yes)
        reply = api.delete(f"/v1/noria/datasets/{quote(row['id'], safe='')}", force=force)
    print_json(reply) if target().json else print(f"Deleted {row['name']}.")
