"""`noria traces`: what happened, how long it took, what it cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from ._command import command, group

__all__ = ["app"]

app = group("Traces: list, show, stats, delete.")

Since = Annotated[
    str | None, typer.Option("--from", metavar="WHEN", help="From then on: 2h, 3d, 2026-01-31, or 2026-01-31T08:00.")
]
Until = Annotated[str | None, typer.Option("--to", metavar="WHEN", help="Before then.")]
Model = Annotated[str | None, typer.Option(help="Only this model.")]
Status = Annotated[Literal["ok", "error"] | None, typer.Option(help="Only those that went well, or failed.")]
Name = Annotated[str | None, typer.Option(help="Only traces of this name.")]
Service = Annotated[str | None, typer.Option(help="Only traces of this service.")]
Key = Annotated[str | None, typer.Option("--key", help="Only calls with this API key (its id).")]
Session = Annotated[str | None, typer.Option("--session", help="Only this session.")]
User = Annotated[str | None, typer.Option("--user", help="Only this user.")]
MinLatency = Annotated[float | None, typer.Option("--min-latency-s", min=0, help="At least so many seconds.")]
MaxLatency = Annotated[float | None, typer.Option("--max-latency-s", min=0, help="At most so many seconds.")]
MinCost = Annotated[float | None, typer.Option("--min-cost-usd", min=0, help="At least so many dollars.")]
MaxCost = Annotated[float | None, typer.Option("--max-cost-usd", min=0, help="At most so many dollars.")]
MinTokens = Annotated[int | None, typer.Option("--min-tokens", min=0, help="At least so many tokens.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", min=0, help="At most so many tokens.")]
Text = Annotated[str | None, typer.Option("--text", help="Words that occur in inputs or outputs.")]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Metadata that it carries; repeatable.")
]
Prompt = Annotated[str | None, typer.Option("--prompt", help="Only calls that ran this stored prompt (its name or id).")]
PromptVersion = Annotated[int | None, typer.Option("--prompt-version", min=1, help="Only calls that ran this version of it.")]
TraceId = Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of the trace, or its beginning; default: the newest.")]


@command(app, "list")
def list_traces(
    since: Since = None,
    until: Until = None,
    model: Model = None,
    status: Status = None,
    name: Name = None,
    service: Service = None,
    key: Key = None,
    session: Session = None,
    user: User = None,
    min_latency_s: MinLatency = None,
    max_latency_s: MaxLatency = None,
    min_cost_usd: MinCost = None,
    max_cost_usd: MaxCost = None,
    min_tokens: MinTokens = None,
    max_tokens: MaxTokens = None,
    text: Text = None,
    metadata: Metadata = None,
    prompt: Prompt = None,
    prompt_version: PromptVersion = None,
    order: Annotated[
        Literal["newest", "oldest", "slowest", "costliest", "most_tokens"], typer.Option(help="In which order.")
    ] = "newest",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")] = 20,
) -> None:
    """List traces."""
    from ._trace_views import print_list, wanted

    print_list(wanted(locals()), order, limit)


@command(app, "show")
def show(
    trace_id: TraceId = None,
    full: Annotated[bool, typer.Option("--full", help="Inputs and outputs of every span, whole.")] = False,
) -> None:
    """Show a trace: its spans as a tree with their time, tokens and cost."""
    from ._trace_views import print_trace

    print_trace(trace_id, full=full)


@command(app, "stats")
def stats(
    group_by: Annotated[
        Literal["none", "model", "provider", "key", "day", "name", "service", "status"],
        typer.Option("--by", help="One row for each of these."),
    ] = "model",
    since: Since = None,
    until: Until = None,
    model: Model = None,
    status: Status = None,
    service: Service = None,
    key: Key = None,
    text: Text = None,
    metadata: Metadata = None,
    prompt: Prompt = None,
    prompt_version: PromptVersion = None,
) -> None:
    """Requests, errors, tokens, cost and latency."""
    from ._trace_views import print_stats, wanted

    print_stats(wanted(locals()), group_by)


@command(app, "delete")
def delete(
    trace_ids: Annotated[list[str] | None, typer.Argument(metavar="[IDS]...", help="Ids of traces.", show_default=False)] = None,
    since: Since = None,
    until: Until = None,
    model: Model = None,
    status: Status = None,
    service: Service = None,
    text: Text = None,
    metadata: Metadata = None,
    every: Annotated[bool, typer.Option("--all", help="Every trace that the filters leave; without filters, all.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete traces by id, or with --all every trace that matches."""
    from ._trace_views import delete_traces, wanted

    given: dict[str, Any] = wanted(locals())
    delete_traces(trace_ids or [], given, every=every, yes=yes)
