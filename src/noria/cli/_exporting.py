"""`noria models merge`: a tuned model as a folder of the user's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from noria.errors import InvalidRequest

from ._api import Api
from ._prepare import merge

__all__ = ["export"]


def export(api: Api, model: str, out: str, form: str) -> dict[str, Any]:
    """Has the server merge, then moves the result to `out` where the server is this machine; else it stays there."""
    wanted = Path(out).expanduser().absolute()
    if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
        raise InvalidRequest(f"{wanted} exists and is not an empty folder.", param="out", hint="Give a new folder.")
    job = merge(api, model, form)
    made = Path(job["detail"]["folder"])
    here = urlsplit(api.url).hostname in {"127.0.0.1", "::1", "localhost"} and made.is_dir()
    if not here:
        return {"model": model, "folder": str(made), "format": form, "moved": False, "job": job["id"]}
    wanted.mkdir(parents=True, exist_ok=True)
    formats = ("safetensors", "openvino") if form == "both" else (form,)
    for name in formats:  # one format is the folder itself, both lie side by side
        source = made / name
        for each in sorted(source.iterdir()):
            target = wanted / name if form == "both" else wanted
            target.mkdir(exist_ok=True)
            shutil.move(each, target / each.name)
    shutil.rmtree(made, ignore_errors=True)
    return {"model": model, "folder": str(wanted), "format": form, "moved": True, "job": job["id"]}
