"""`noria eval`: evals, their runs, comparisons of two runs, and the calibration of judges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from ._command import Yes, command, confirm, group, target
from ._completion import complete_eval, complete_model

__all__ = ["app"]

app = group("Evals: grade answers, compare runs.")

EvalName = Annotated[
    str, typer.Argument(metavar="EVAL", help="Id (eval_…) or name of the eval.", show_default=False, autocompletion=complete_eval)
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run (evalrun_…).", show_default=False)]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")]
Data = Annotated[
    Path | None, typer.Option("--data", "-d", help='Rows as JSON lines: {"item": {…}}, or the items by themselves.', exists=True)
]
DatasetName = Annotated[str | None, typer.Option("--dataset", metavar="NAME[@VERSION]", help="Rows of a dataset here.")]
Split = Annotated[Literal["train", "validation", "test"] | None, typer.Option(help="Only this split of the dataset.")]


@command(app, "create")
def create(
    name: Annotated[str, typer.Argument(help="Name of the eval.", show_default=False)],
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="JSON or TOML with data_source_config and testing_criteria.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Grader: the answer is {{item.expected}}, letter for letter.")] = False,
    contains: Annotated[bool, typer.Option("--contains", help="Grader: the answer has {{item.expected}} in it.")] = False,
    similar: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC[:THRESHOLD]", help="Grader: text similarity, e.g. rouge_l:0.5; repeatable."),
    ] = None,
    python: Annotated[Path | None, typer.Option(help="Grader: a file with grade(sample, item) -> float.", exists=True)] = None,
) -> None:
    """Create an eval from a file, or from a few graders over rows with `input` and `expected`."""
    from ._connection import connect
    from ._eval_specs import criteria_of, read_spec
    from ._show import print_json

    spec: dict[str, Any] = read_spec(source) if source else {"data_source_config": _free_config()}
    added = criteria_of(exact=exact, contains=contains, similar=similar or [], python=python)
    spec["testing_criteria"] = [*spec.get("testing_criteria", []), *added]
    with connect() as api:
        row = api.post("/v1/evals", {"name": name, **spec})
    print_json(row) if target().json else print(f"Created {name} ({row['id']}).")


def _free_config() -> dict[str, Any]:
    return {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}


@command(app, "list")
def list_evals(limit: Limit = 50) -> None:
    """List evals, newest first."""
    from ._connection import connect
    from ._eval_views import eval_table
    from ._show import print_json

    with connect() as api:
        rows = list(api.pages("/v1/evals", limit=limit, order="desc"))
    print_json(rows) if target().json else eval_table(rows)


@command(app, "show")
def show(
    which: Annotated[
        str,
        typer.Argument(
            metavar="EVAL|RUN", help="Id or name of an eval, or id of a run.", show_default=False, autocompletion=complete_eval
        ),
    ],
) -> None:
    """Show an eval with its runs, or a run with its results and their intervals."""
    from ._connection import connect
    from ._eval_specs import find_eval, get_run
    from ._eval_views import eval_card, run_card
    from ._show import print_json

    with connect() as api:
        if which.startswith("evalrun_"):
            run = get_run(api, which)
            print_json(run) if target().json else run_card(run)
            return
        row = find_eval(api, which)
        runs = list(api.pages(f"/v1/evals/{row['id']}/runs", limit=100, order="desc"))
    print_json({**row, "runs": runs}) if target().json else eval_card(row, runs)


@command(app, "run")
def run(
    which: EvalName,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Model, adapter or route to ask; repeatable.", autocompletion=complete_model),
    ] = None,
    data: Data = None,
    dataset: DatasetName = None,
    split: Split = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Most rows of the dataset.")] = None,
    input: Annotated[
        str | None,
        typer.Option("--input", help="The user's message for each row. Default: {{item.input}}; a dataset's messages."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message before it; may hold {{item.…}}.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="Sampling temperature.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: the model's.")] = None,
    min_pass_rate: Annotated[float | None, typer.Option(min=0, max=1, help="Exit with 1 where fewer rows pass.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end, with a progress bar.")] = True,
) -> None:
    """Run an eval: ask the model about every row and grade the answers. Without --model, grade what the rows hold.

    Ctrl-C leaves the run going on in the server; `noria eval cancel RUN` ends it.
    """
    from ._connection import connect
    from ._eval_specs import Asking, find_eval, rows_source, run_body, wait_for
    from ._eval_views import run_card
    from ._show import print_json

    asking = Asking(input, system, temperature, max_tokens)
    with connect() as api:
        row = find_eval(api, which)
        source = rows_source(api, data, dataset, split, limit)
        bodies = [run_body(source, each, asking, name) for each in model or [None]]
        runs = [api.post(f"/v1/evals/{row['id']}/runs", body) for body in bodies]
        if wait:
            runs = [wait_for(api, each) for each in runs]
    if target().json:
        print_json(runs if len(runs) > 1 else runs[0])
    else:
        for each in runs:
            run_card(each)
        if len(runs) == 2 and wait:
            print(f"\nCompare them: noria eval compare {runs[0]['id']} {runs[1]['id']}")
    _judge(runs, min_pass_rate if wait else None)


def _judge(runs: list[dict[str, Any]], min_pass_rate: float | None) -> None:
    """The exit code: 1 for a run that failed or fell short."""
    for run in runs:
        counts = run["result_counts"]
        short = min_pass_rate is not None and (not counts["total"] or counts["passed"] / counts["total"] < min_pass_rate)
        if run["status"] in {"failed", "canceled"} or short:
            raise typer.Exit(1)


@command(app, "items")
def items(
    run_id: RunId,
    status: Annotated[Literal["pass", "fail", "error"] | None, typer.Option(help="Only rows that ended so.")] = None,
    limit: Limit = 20,
) -> None:
    """List a run's rows: what was asked, what was answered, how it was graded."""
    from ._connection import connect
    from ._eval_specs import get_run
    from ._eval_views import item_table
    from ._show import print_json

    with connect() as api:
        run = get_run(api, run_id)
        rows = list(api.pages(f"/v1/evals/{run['eval_id']}/runs/{run_id}/output_items", limit=limit, status=status))
    print_json(rows) if target().json else item_table(rows)


@command(app, "compare")
def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The run to compare with.", show_default=False)],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run that may be better.", show_default=False)],
    criterion: Annotated[str | None, typer.Option(help="Only this grader. Default: all of them together.")] = None,
    rows: Annotated[
        Literal["win", "loss", "tie"] | None, typer.Option(help="List the rows that RUN_B won, lost, or that are alike.")
    ] = None,
    limit: Limit = 20,
) -> None:
    """Compare two runs on the rows that both have: wins, losses, and whether that could be chance."""
    from ._connection import connect
    from ._eval_views import comparison_card
    from ._show import print_json

    body = {"run_a": run_a, "run_b": run_b, "criterion": criterion, "outcome": rows, "limit": limit if rows else 0}
    with connect() as api:
        found = api.post("/v1/noria/evals/compare", {key: value for key, value in body.items() if value is not None})
    print_json(found) if target().json else comparison_card(found)


@command(app, "calibrate")
def calibrate(
    grader: Annotated[Path, typer.Argument(help="JSON or TOML of a label_model or score_model grader.", exists=True)],
    data: Data = None,
    dataset: DatasetName = None,
    split: Split = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Most rows of the dataset.")] = None,
    human: Annotated[
        str, typer.Option(help="Where a row says what people thought: a label, or pass or fail.")
    ] = "{{item.label}}",
    output: Annotated[str, typer.Option(help="The text that is judged.")] = "{{sample.output_text}}",
) -> None:
    """Measure how far a judge agrees with people. A judge without that is marked uncalibrated and cannot gate."""
    from ._connection import connect
    from ._eval_specs import read_spec, rows_source
    from ._eval_views import agreement_card
    from ._show import print_json

    with connect() as api:
        source = rows_source(api, data, dataset, split, limit)
        body = {"grader": read_spec(grader), "source": source, "human": human, "output_text": output}
        found = api.post("/v1/noria/evals/calibrate", body)
    print_json(found) if target().json else agreement_card(found)


@command(app, "import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="JSON or JSON lines of objects exported from OpenAI.", exists=True, dir_okay=False)
    ],
) -> None:
    """Import evals, runs, output items and stored completions exported from OpenAI. May be repeated."""
    from ._connection import connect
    from ._show import note, print_json

    with connect() as api:
        uploaded = api.send_file("/v1/files", file, purpose="evals")
        done = api.post("/v1/noria/imports/openai", {"file_id": uploaded["id"]})
        api.delete(f"/v1/files/{uploaded['id']}")
    if target().json:
        print_json(done)
        return
    kinds = [f"{done[kind]} {kind.replace('_', ' ')}" for kind in ("evals", "runs", "output_items", "completions")]
    print(f"Imported {', '.join(kinds)}; {done['skipped']} were here already.")
    for problem in done["problems"]:
        note(problem)
    if done["num_problems"]:
        raise typer.Exit(1)


@command(app, "cancel")
def cancel(run_id: RunId) -> None:
    """Stop a run. What it has done stays."""
    from ._connection import connect
    from ._eval_specs import get_run
    from ._show import print_json

    with connect() as api:
        run = get_run(api, run_id)
        row = api.post(f"/v1/evals/{run['eval_id']}/runs/{run_id}/cancel")
    print_json(row) if target().json else print(f"{run_id} is {row['status']}.")


@command(app, "delete")
def delete(
    which: Annotated[
        str,
        typer.Argument(
            metavar="EVAL|RUN", help="Id or name of an eval, or id of a run.", show_default=False, autocompletion=complete_eval
        ),
    ],
    yes: Yes = False,
) -> None:
    """Delete an eval with its runs, or one run."""
    from ._connection import connect
    from ._eval_specs import find_eval, get_run
    from ._show import print_json

    with connect() as api:
        if which.startswith("evalrun_"):
            run = get_run(api, which)
            confirm(f"Delete the run {run['name']} ({which})?", yes=yes)
            reply = api.delete(f"/v1/evals/{run['eval_id']}/runs/{quote(which, safe='')}")
        else:
            row = find_eval(api, which)
            confirm(f"Delete the eval {row['name']} ({row['id']}) with all its runs?", yes=yes)
            reply = api.delete(f"/v1/evals/{row['id']}")
    print_json(reply) if target().json else print(f"Deleted {which}.")
