"""`noria datasets`: versioned rows out of files, feedback and traces; curated, compared, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ._command import Yes, command, group
from ._completion import complete_dataset

__all__ = ["app"]

app = group("Datasets: versioned rows, curated and compared.")

Dataset = Annotated[
    str, typer.Argument(metavar="DATASET", help="Name or id of the dataset.", show_default=False, autocompletion=complete_dataset)
]
Version = Annotated[int | None, typer.Option("--version", "-v", min=1, help="A version; default: the newest.")]
Split = Annotated[Literal["train", "validation", "test"] | None, typer.Option(help="Only this split.")]
Note = Annotated[str, typer.Option(help="What is new in the version.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")]
Model = Annotated[str | None, typer.Option(help="Only of this model.")]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Metadata that it carries; repeatable.")
]
Since = Annotated[str | None, typer.Option("--from", metavar="WHEN", help="From then on: 2h, 3d, 2026-01-31.")]
Until = Annotated[str | None, typer.Option("--to", metavar="WHEN", help="Before then.")]
FileFormat = Literal["noria", "openai", "dpo", "alpaca", "sharegpt", "csv", "parquet"]
Kind = Literal[
    "exact_duplicate", "near_duplicate", "contradiction", "leakage", "personal_data", "oversize", "one_class", "trigger"
]
Findings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FINDINGS]...", help="Ids of findings; or choose with --kind or --all.", show_default=False),
]
KindOption = Annotated[Kind | None, typer.Option(help="Only findings of this kind.")]


@command(app, "create")
def create(
    name: Annotated[str, typer.Argument(help="Name of the new dataset.", show_default=False)],
    description: Annotated[str, typer.Option(help="What is in it.")] = "",
    validation_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the rows to validate with.")] = 0.1,
    test_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the rows to test with.")] = 0.1,
) -> None:
    """Create an empty dataset. Its shares hold for good, so that no row crosses from test to train."""
    from ._command import target
    from ._connection import connect
    from ._show import print_json

    body = {"name": name, "description": description, "validation_share": validation_share, "test_share": test_share}
    with connect() as api:
        row = api.post("/v1/noria/datasets", body)
    print_json(row) if target().json else print(f"Created {row['name']} ({row['id']}).")


@command(app, "list")
def list_datasets(limit: Limit = 100) -> None:
    """List datasets, newest first."""
    from ._dataset_views import print_datasets

    print_datasets(limit)


@command(app, "show")
def show(dataset: Dataset) -> None:
    """Show a dataset with its versions and open findings."""
    from ._dataset_views import print_dataset

    print_dataset(dataset)


@command(app, "import")
def import_rows(
    dataset: Dataset,
    file: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV or Parquet.", show_default=False, exists=True, dir_okay=False)],
    format: Annotated[FileFormat | None, typer.Option(help="The format; default: told from the records.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Import nothing where a line is wrong.")] = False,
    create: Annotated[bool, typer.Option("--create", help="Make the dataset if there is none of that name.")] = False,
    note: Note = "",
) -> None:
    """Import a file: OpenAI chat or preference lines, Alpaca, ShareGPT, a table. What is wrong is said line by line."""
    from ._dataset_filling import import_file

    import_file(dataset, file, {"format": format or "auto", "strict": strict, "note": note}, create=create)


@command(app, "collect")
def collect(
    dataset: Dataset,
    source: Annotated[
        Literal["feedback", "traces", "completions"], typer.Argument(help="What to collect from.", show_default=False)
    ],
    model: Model = None,
    label: Annotated[str | None, typer.Option(help="Feedback: only with this label.")] = None,
    rating: Annotated[Literal["up", "down"] | None, typer.Option(help="Feedback: only thumbs up, or down.")] = None,
    author: Annotated[str | None, typer.Option(help="Feedback: only by this author.")] = None,
    metadata: Metadata = None,
    name: Annotated[str | None, typer.Option(help="Traces: only of this name.")] = None,
    text: Annotated[str | None, typer.Option(help="Traces: words that occur in them.")] = None,
    since: Since = None,
    until: Until = None,
    labels: Annotated[bool, typer.Option("--labels", help="Feedback: a label is the answer expected.")] = False,
    min_score: Annotated[float | None, typer.Option(help="Feedback: a mean score from here on counts as good.")] = None,
    no_answers: Annotated[
        bool, typer.Option("--no-answers", help="Traces, completions: without the answer given as the one expected.")
    ] = False,
    create: Annotated[bool, typer.Option("--create", help="Make the dataset if there is none of that name.")] = False,
    note: Note = "",
) -> None:
    """Make rows of feedback, traces or stored completions, with where each came from.

    noria datasets collect support feedback --labels --from 7d
    """
    from ._dataset_filling import collect_rows

    collect_rows(dataset, source, locals())


@command(app, "rows")
def rows(
    dataset: Dataset,
    version: Version = None,
    split: Split = None,
    text: Annotated[str | None, typer.Option("--text", help="A text that occurs in the row.")] = None,
    metadata: Metadata = None,
    limit: Limit = 20,
) -> None:
    """List rows."""
    from ._dataset_views import print_rows

    print_rows(dataset, {"version": version, "split": split, "text": text}, metadata or [], limit)


@command(app, "remove")
def remove(
    dataset: Dataset,
    row_ids: Annotated[list[str], typer.Argument(metavar="ROWS...", help="Ids of rows (row_…).", show_default=False)],
    note: Note = "",
) -> None:
    """Remove rows: a new version without them."""
    from ._dataset_filling import remove_rows

    remove_rows(dataset, row_ids, note)


@command(app, "curate")
def curate(
    dataset: Dataset,
    version: Version = None,
    kind: Annotated[list[str] | None, typer.Option(help="Look for this only; repeatable.")] = None,
    accept: Annotated[list[str] | None, typer.Option(help="Accept and apply what is found of this kind; repeatable.")] = None,
    near: Annotated[float, typer.Option(min=0.5, max=1, help="Similarity from which inputs are nearly the same.")] = 0.85,
    max_characters: Annotated[int, typer.Option(min=1, help="Rows longer than this are a finding.")] = 32_000,
) -> None:
    """Look for duplicates, contradictions, leakage, personal data and more. Nothing is changed unless --accept says so."""
    from ._dataset_findings import run_curation

    given = {"version": version, "kinds": kind, "accept": accept or [], "near": near, "max_characters": max_characters}
    run_curation(dataset, {key: value for key, value in given.items() if value is not None})


@command(app, "findings")
def findings(
    dataset: Dataset,
    version: Annotated[int | None, typer.Option("--version", "-v", min=1, help="Only of this version.")] = None,
    kind: KindOption = None,
    decision: Annotated[Literal["open", "accepted", "rejected"] | None, typer.Option(help="Only those.")] = "open",
    limit: Limit = 50,
) -> None:
    """List findings."""
    from ._dataset_findings import print_findings

    print_findings(dataset, {"version": version, "kind": kind, "decision": decision}, limit)


@command(app, "accept")
def accept(
    dataset: Dataset,
    ids: Findings = None,
    kind: KindOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every open finding.")] = False,
    apply: Annotated[
        bool, typer.Option("--apply/--no-apply", help="Make a version without the rows that accepted findings remove.")
    ] = True,
) -> None:
    """Accept findings, and make a version without the rows that they remove."""
    from ._dataset_findings import decide

    decide(dataset, ids or [], kind, "accepted", every=every, apply=apply)


@command(app, "reject")
def reject(
    dataset: Dataset,
    ids: Findings = None,
    kind: KindOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every open finding.")] = False,
) -> None:
    """Reject findings: their rows stay, and they are not found again."""
    from ._dataset_findings import decide

    decide(dataset, ids or [], kind, "rejected", every=every, apply=False)


@command(app, "diff")
def diff(
    dataset: Dataset,
    before: Annotated[int, typer.Argument(metavar="FROM", min=1, help="A version.", show_default=False)],
    after: Annotated[int, typer.Argument(metavar="TO", min=1, help="Another.", show_default=False)],
    limit: Limit = 50,
) -> None:
    """Show what changed between two versions."""
    from ._dataset_views import print_diff

    print_diff(dataset, before, after, limit)


@command(app, "export")
def export(
    dataset: Dataset,
    file: Annotated[
        Path | None, typer.Argument(help="Where to; - is stdout. Default: DATASET@VERSION in this folder.", allow_dash=True)
    ] = None,
    version: Version = None,
    split: Split = None,
    format: Annotated[FileFormat, typer.Option(help="The format.")] = "noria",
    upload: Annotated[bool, typer.Option("--upload", help="Keep it on the server as a file for training, instead.")] = False,
) -> None:
    """Write a version to a file, or keep it on the server for a tuning job."""
    from ._dataset_filling import export_rows

    export_rows(dataset, file, {"version": version, "split": split, "format": format}, upload=upload)


@command(app, "delete")
def delete(
    dataset: Dataset,
    force: Annotated[bool, typer.Option("--force", help="Also when models were trained on it.")] = False,
    yes: Yes = False,
) -> None:
    """Delete a dataset with all its versions, and the content of files exported from it."""
    from ._dataset_filling import delete_dataset

    delete_dataset(dataset, force=force, yes=yes)
