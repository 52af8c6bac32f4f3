"""Waiting for a job with a progress bar. Ctrl-C leaves it running and says how to come back."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from noria.errors import NoriaError

from ._api import Api
from ._show import note, progress

__all__ = ["watch_job"]

_POLL_S = 0.3


def watch_job(api: Api, job: dict[str, Any], title: str) -> dict[str, Any]:
    """The job when it has ended well. Raises what it failed with."""
    path = f"/v1/noria/jobs/{quote(job['id'], safe='')}"
    with progress() as bar:
        task = bar.add_task(title, total=None, detail="")
        try:
            while job["status"] in {"queued", "running"}:
                bar.update(task, completed=job["done"], total=job["total"])
                time.sleep(_POLL_S)
                job = api.get(path)
        except KeyboardInterrupt:
            where = "on the server" if api.lasting else "when the server runs next (noria up)"
            note(f"It goes on {where}: noria jobs show {job['id']}")
            raise
    if job["status"] != "completed":
        raise NoriaError(
            f"{title} ended as {job['status']}: {job['error'] or 'it was stopped'}", hint=f"noria jobs show {job['id']}"
        )
    return job
