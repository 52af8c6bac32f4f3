"""`noria tune`: models trained further on one's own examples."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from ._command import command, group, target
from ._completion import complete_dataset, complete_model, complete_tuning_job

__all__ = ["app"]

app = group("Fine-tuning: train a model on your examples.")

JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="Id of the job (ftjob-…).", show_default=False, autocompletion=complete_tuning_job)
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")]


@command(app, "create")
def create(
    data: Annotated[
        str,
        typer.Argument(
            metavar="FILE|DATASET", help="A JSONL file, a file-… id, or NAME[@VERSION].", autocompletion=complete_dataset
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model to start from; default: the chat model.", autocompletion=complete_model),
    ] = None,
    validation: Annotated[
        str | None, typer.Option(metavar="FILE", help="JSONL to validate on; a dataset's own validation split is used anyhow.")
    ] = None,
    method: Annotated[
        Literal["supervised", "dpo"], typer.Option(help="Learn answers, or which of two is better.")
    ] = "supervised",
    suffix: Annotated[str | None, typer.Option(help="A word in the new model's name.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, max=50, help="Times the data is gone through; default: auto.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=256, help="Examples a step; default: auto.")] = None,
    rate: Annotated[float | None, typer.Option(help="Multiplier of the learning rate; default: auto.")] = None,
    beta: Annotated[float | None, typer.Option(help="For dpo: how near to stay to what the model was.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed and data give the same model.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of Noria's own, e.g. lora_rank=8; repeatable."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Watch it until it ends.")] = True,
) -> None:
    """Train a model on a file or a dataset.

    Ctrl-C leaves the training running and says how to come back to it.
    """
    from ._connection import connect
    from ._tuning import training_files, watch
    from ._tuning_options import hyperparameters, noria_options

    given = hyperparameters(n_epochs=epochs, batch_size=batch, learning_rate_multiplier=rate, beta=beta)
    body: dict[str, Any] = {"suffix": suffix, "seed": seed, "noria": noria_options(option or ())}
    body["method"] = {"type": method, method: {"hyperparameters": given}}
    with connect() as api:
        body["training_file"], body["validation_file"] = training_files(api, data, validation, method)
        body["model"] = model or api.get("/v1/noria/status")["chat_model"]
        job = api.post("/v1/fine_tuning/jobs", {key: value for key, value in body.items() if value not in (None, {})})
        _end(watch(api, job) if wait else job, waited=wait)


@command(app, "watch")
def watch_job(job: JobId) -> None:
    """Come back to a job: progress and loss until it ends."""
    from ._connection import connect
    from ._tuning import watch

    with connect() as api:
        _end(watch(api, api.get(_path(job))), waited=True)


def _end(job: dict[str, Any], *, waited: bool) -> None:
    from ._show import print_json
    from ._tuning import card

    if target().json:
        print_json(job)
    elif not waited:
        print(f"{job['id']} has begun. Come back to it: noria tune watch {job['id']}")
    else:
        card(job)
    if waited and job["status"] != "succeeded":
        raise typer.Exit(1)


@command(app, "list")
def list_jobs(limit: Limit = 20) -> None:
    """List fine-tuning jobs, newest first."""
    from ._connection import connect
    from ._show import Column, ago, print_json, table

    with connect() as api:
        rows = list(api.pages("/v1/fine_tuning/jobs", limit=limit))
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("STATUS"), Column("METHOD"), Column("BASE", shrink=True), Column("MODEL", shrink=True), Column("CREATED"),
        Column("ID", style="dim"),
    )  # fmt: skip
    shown = (
        (row["status"], row["method"]["type"], row["model"], row["fine_tuned_model"] or "", ago(row["created_at"]), row["id"])
        for row in rows
    )
    table(columns, shown, empty="There are no fine-tuning jobs. Start one: noria tune create FILE.jsonl")


@command(app, "show")
def show_job(job: JobId) -> None:
    """Show one job: status, hyperparameters, data, forgetting."""
    from ._connection import connect
    from ._show import print_json
    from ._tuning import card

    with connect() as api:
        row = api.get(_path(job))
    print_json(row) if target().json else card(row)


@command(app, "events")
def list_events(job: JobId, limit: Limit = 100) -> None:
    """List what happened in a job, oldest first."""
    from ._connection import connect
    from ._show import Column, clock, print_json, table

    with connect() as api:
        rows = list(api.pages(f"{_path(job)}/events", limit=limit))[::-1]
    if target().json:
        print_json(rows)
        return
    columns = (Column("TIME"), Column("LEVEL"), Column("MESSAGE", shrink=True))
    table(columns, ((clock(row["created_at"]), row["level"], row["message"]) for row in rows), empty="Nothing happened yet.")


@command(app, "checkpoints")
def list_checkpoints(job: JobId, limit: Limit = 100) -> None:
    """List a job's checkpoints; each can be asked by its model's name."""
    from ._connection import connect
    from ._show import Column, print_json, table

    with connect() as api:
        rows = list(api.pages(f"{_path(job)}/checkpoints", limit=limit))
    if target().json:
        print_json(rows)
        return
    columns = (Column("STEP", "right"), Column("VALID LOSS", "right"), Column("MODEL", shrink=True))
    shown = (
        (str(row["step_number"]), _figure(row["metrics"].get("full_valid_loss")), row["fine_tuned_model_checkpoint"])
        for row in rows
    )
    table(columns, shown, empty="There are no checkpoints yet.")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


@command(app, "cancel")
def cancel_job(job: JobId) -> None:
    """Cancel a job for good."""
    _ask(job, "cancel", "is cancelled")


@command(app, "pause")
def pause_job(job: JobId) -> None:
    """Pause a job: its place is free for another, and `resume` goes on from where it was."""
    _ask(job, "pause", "is paused. Go on: noria tune resume")


@command(app, "resume")
def resume_job(job: JobId) -> None:
    """Go on with a paused job."""
    _ask(job, "resume", "goes on. Watch it: noria tune watch")


def _ask(job: str, verb: str, said: str) -> None:
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        row = api.post(f"{_path(job)}/{verb}")
    ending = f" {row['id']}" if said.endswith(("resume", "watch")) else "."
    print_json(row) if target().json else print(f"{row['id']} {said}{ending}")


def _path(job: str) -> str:
    return f"/v1/fine_tuning/jobs/{quote(job, safe='')}"
