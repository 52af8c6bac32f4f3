"""The ASGI application: routes inside, the edge around them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from noria import __version__

from . import (
    _chat,
    _completions_store,
    _dataset_findings,
    _datasets,
    _evals,
    _feedback,
    _files,
    _fine_tuning,
    _graders,
    _lineage,
    _models,
    _noria_admin,
    _noria_models,
    _noria_traces,
    _prompts,
    _responses,
    _vector_stores,
    _wheel,
)
from ._edge import Edge
from ._errors import install
from ._fast_lane import FastLane
from ._idempotency import Idempotent
from ._root_span import RootSpan
from ._wiring import Noria

__all__ = ["build_app"]

_DESCRIPTION = "OpenAI's API over local and remote models, knowledge and traces; what only Noria has is under /v1/noria."


def build_app(noria: Noria) -> Any:
    """The application of one running instance."""
    app = FastAPI(
        title="Noria",
        version=__version__,
        description=_DESCRIPTION,
        docs_url="/docs",
        redoc_url=None,
        # Requests have a root span of our own, which knows streams, projects and models.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "exclude": lambda _scope: True},
    )
    app.state.noria = noria
    install(app)
    for module in (
        _completions_store,
        _chat,
        _responses,
        _models,
        _files,
        _vector_stores,
        _prompts,
        _evals,
        _graders,
        _fine_tuning,
        _feedback,
        _datasets,
        _dataset_findings,
        _lineage,
        _wheel,
        _noria_models,
        _noria_traces,
        _noria_admin,
    ):
        app.include_router(module.router)
    return Edge(RootSpan(Idempotent(FastLane(app, noria), noria), noria), noria)
