"""What a wheel's turns are made of, put together from the services of one instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noria.evals import Evals
from noria.evals.datasets import Datasets
from noria.jobs import Jobs
from noria.models import Hub
from noria.store import Database
from noria.tracing import Tracing
from noria.wheel import (
    DatasetRows,
    EvalRuns,
    HubTraffic,
    Parts,
    RecordedLive,
    TuningJobs,
    Wheels,
    WheelSpec,
    check_graders,
    check_train,
)

if TYPE_CHECKING:
    from noria.training import Tuning

__all__ = ["make_wheels"]


class _Preparation:
    def __init__(self, traffic: HubTraffic, rows: DatasetRows, evals: Evals) -> None:
        self._traffic, self._rows, self._evals = traffic, rows, evals

    async def prepare_route(self, project_id: str, route: str, base_model: str) -> str:
        return await self._traffic.prepare(project_id, route, base_model)

    async def prepare_dataset(self, project_id: str, spec: WheelSpec) -> str:
        return await self._rows.prepare(project_id, spec)

    async def check(self, project_id: str, spec: WheelSpec, dataset_id: str | None = None) -> None:
        await self._traffic.base(project_id, spec.base_model)
        await check_graders(self._evals, project_id, spec.gate)
        check_train(spec.train)
        if dataset_id is not None:
            await self._rows.check_shares(project_id, spec, dataset_id)
        if spec.gate.dataset is not None:
            await self._rows.check_dataset(project_id, spec.gate.dataset)


def make_wheels(database: Database, jobs: Jobs, tracing: Tracing, services: tuple[Hub, Datasets, Evals, Tuning]) -> Wheels:
    """`services` are what turns call."""
    hub, datasets, evals, tuning = services
    rows, traffic, runs = DatasetRows(database, datasets), HubTraffic(hub), EvalRuns(database, evals)
    live = RecordedLive(database, tracing.store, tracing.flush)
    parts = Parts(rows, TuningJobs(database, tuning), runs, runs, traffic, live)
    return Wheels(database, jobs, parts, _Preparation(traffic, rows, evals))
