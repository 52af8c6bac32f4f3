"""The command tree: what `noria --help` lists, in the order in which one meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noria import __version__

from . import (
    _ask,
    _chat,
    _config,
    _datasets,
    _doctor,
    _eval,
    _feedback,
    _ingest,
    _jobs,
    _keys,
    _lineage,
    _models,
    _prompts,
    _search,
    _stores,
    _traces,
    _tune,
    _up,
    _wheel,
)
from ._command import common_options, group

__all__ = ["app"]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"noria {__version__}")
        raise typer.Exit


app = group("Serve, retrieve, trace and improve models behind OpenAI's API, on this machine.")


@app.callback()
def _root(
    home: Annotated[Path | None, typer.Option(help="Folder of the instance (NORIA_HOME; default ~/.noria).")] = None,
    url: Annotated[str | None, typer.Option(help="Talk to the server at this URL (NORIA_URL, with NORIA_API_KEY).")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    common_options(home, url)


for _module in (_up, _chat, _ask, _ingest, _search):
    _module.register(app)
for _name, _group in (
    ("stores", _stores.stores_app),
    ("files", _stores.files_app),
    ("models", _models.app),
    ("prompts", _prompts.app),
    ("tune", _tune.app),
    ("wheel", _wheel.app),
    ("traces", _traces.app),
    ("feedback", _feedback.app),
    ("datasets", _datasets.app),
    ("eval", _eval.app),
    ("jobs", _jobs.jobs_app),
    ("engines", _jobs.engines_app),
    ("keys", _keys.app),
    ("config", _config.app),
):
    app.add_typer(_group, name=_name)
for _module in (_lineage, _config, _doctor):
    _module.register(app)
