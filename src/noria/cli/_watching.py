"""Following work that the server does to its end, with a progress bar. Ctrl-C leaves it running and says how to come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from noria.errors import UpstreamError

from ._api import Api
from ._show import note, progress

__all__ = ["Work", "follow", "watch_job"]

_POLL_S = 0.3


@dataclass(frozen=True, slots=True)
class Work:
    """What is followed: a thing of the API at `path`. `title` is the bar's at first, `back` the command that comes back to it."""

    path: str
    title: str
    back: str
    by_bytes: bool = False


def follow(
    api: Api, work: Work, row: dict[str, Any], *, going: Callable[[dict[str, Any]], bool], bar: Callable[[dict[str, Any]], Any]
) -> dict[str, Any]:
    """The row of the work when it is no longer `going`. `bar` gives what to show of a row (`Progress.update`'s fields)."""
    with progress(by_bytes=work.by_bytes) as shown:
        task = shown.add_task(work.title, total=None, detail="")
        try:
            while True:
                shown.update(task, **bar(row))
                if not going(row):
                    return row
                time.sleep(_POLL_S)
                row = api.get(work.path)
        except KeyboardInterrupt:
            where = "on the server" if api.lasting else "when the server runs next (noria up)"
            note(f"It goes on {where}. Come back to it: {work.back}")
            raise


def watch_job(api: Api, job: dict[str, Any], title: str, *, by_bytes: bool = False) -> dict[str, Any]:
    """The job when it has ended well. Raises what it failed with."""
    back = f"noria jobs show {job['id']}"
    work = Work(f"/v1/noria/jobs/{quote(job['id'], safe='')}", title, back, by_bytes=by_bytes)
    job = follow(api, work, job, going=lambda row: row["status"] in {"queued", "running"}, bar=lambda row: _state(row, title))
    if job["status"] != "completed":
        raise UpstreamError(f"{title} ended as {job['status']}: {job['error'] or 'it was stopped'}", hint=back)
    return job


def _state(job: dict[str, Any], title: str) -> dict[str, Any]:
    detail = job.get("detail") or {}
    return {
        "description": detail.get("stage") or (job["status"] if job["status"] == "queued" else title),
        "completed": job["done"] or 0,
        "total": job["total"] or None,
        "detail": detail.get("file") or "",
    }
