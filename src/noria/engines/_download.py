"""One file over HTTP onto the disk: resumed, checked, and in its place whole or not at all.

The bytes go to `NAME.part`; beside it `NAME.part.json` keeps the server's validator, so that a resumed download (RFC 9110,
Range with If-Range) never joins two versions. The rename comes after the hash. It knows nothing about models.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import httpx
import orjson

from noria.errors import NoriaError, NotFound, PermissionDenied, UpstreamError

__all__ = ["ByteProgress", "Remote", "check_space", "disk_full", "download", "is_disk_full", "sha256_of"]

ByteProgress = Callable[[int, int | None], None]
"""Called with the bytes on the disk and the bytes in all (None where the server does not say)."""

ATTEMPTS = 5
PROGRESS_BYTES = 1024 * 1024
MARGIN_BYTES = 16 * 1024 * 1024
"""Left free on the disk beyond the file itself."""


@dataclass(frozen=True)
class Remote:
    """A file to fetch. `headers` carry credentials; httpx drops them on a redirect to another host."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    sha256: str | None = None
    size: int | None = None


class _Retry(Exception):
    """This attempt failed in a way that another may mend."""


class _Mismatch(_Retry):
    """The whole file is there and is not the one that was expected: worth one more attempt, from the start."""


def download(client: httpx.Client, remote: Remote, target: Path, progress: ByteProgress) -> str:
    """Fetches `remote` to `target` and returns its SHA-256. Resumes what an earlier call left.

    Raises UpstreamError (unreachable, or another content than expected), NotFound, PermissionDenied, or NoriaError with
    code `disk_full`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fault = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(8.0, 0.25 * 2**attempt))
        try:
            _fetch(client, remote, target, progress)
            return _finish(remote, target)
        except (_Retry, httpx.TransportError) as error:
            if isinstance(error, _Mismatch) and attempt:
                raise UpstreamError(
                    f"{_shown(remote.url)}: {error}.",
                    code="unexpected_content",
                    hint="The index, hub or mirror serves another file under this name; do not use it.",
                ) from error
            fault = str(error) or type(error).__name__
        except OSError as error:
            if is_disk_full(error):
                _forget(target)
                raise disk_full(target.parent) from error
            raise
    raise UpstreamError(
        f"Downloading {_shown(remote.url)} failed {ATTEMPTS} times: {fault}.",
        code="download_failed",
        hint="Check the network and the proxy, then pull again: what has arrived is kept.",
    )


def _fetch(client: httpx.Client, remote: Remote, target: Path, progress: ByteProgress) -> None:
    part = _part(target)
    have = part.stat().st_size if part.exists() else 0
    validator = _read_validator(target)
    if have and remote.sha256 is None and validator is None:
        have = 0  # nothing would tell if the rest belonged to another version
    if part.exists() and have == remote.size:
        return
    headers = {**remote.headers, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    with client.stream("GET", remote.url, headers=headers) as response:
        if response.status_code == 416:  # longer than the file is: a leftover of something else
            _forget(target)
            raise _Retry("the server refused to resume")
        _check_status(response, remote.url)
        resumed = response.status_code == 206
        if resumed and not response.headers.get("content-range", "").startswith(f"bytes {have}-"):
            _forget(target)
            raise _Retry("the server resumed at another place")
        start = have if resumed else 0
        total = remote.size or _total(response, start)
        if total is not None:
            check_space(target.parent, total - start)
        _write_validator(target, response)
        with part.open("r+b" if resumed else "wb") as file:
            _copy(response, file, start, total, progress)


def _copy(response: httpx.Response, file: BinaryIO, start: int, total: int | None, progress: ByteProgress) -> None:
    file.seek(start)
    file.truncate()
    done = told = start
    for chunk in response.iter_raw():  # as it comes: what a larger chunk would hold back is lost in a cut
        done += len(chunk)
        if total is not None and done > total:
            raise _Retry(f"more than the {total} bytes announced arrived")
        file.write(chunk)
        if done - told >= PROGRESS_BYTES:
            told = done
            progress(done, total)
    progress(done, total)
    file.flush()
    os.fsync(file.fileno())
    if total is not None and done < total:
        raise _Retry(f"the connection ended after {done} of {total} bytes")


def _finish(remote: Remote, target: Path) -> str:
    """Checks the whole file and gives it its name."""
    part = _part(target)
    size = part.stat().st_size
    digest = sha256_of(part)
    if (remote.sha256 is not None and digest != remote.sha256) or (remote.size is not None and size != remote.size):
        _forget(target)
        raise _Mismatch(f"what arrived ({size} bytes, SHA-256 {digest}) is not what was expected ({remote.sha256})")
    part.replace(target)
    _validator(target).unlink(missing_ok=True)
    return digest


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status in (401, 403):
        raise PermissionDenied(
            f"{_shown(url)} answered {status}.", hint="Set the token for this hub (HF_TOKEN, MODELSCOPE_API_TOKEN)."
        )
    if status in (404, 410):
        raise NotFound(f"{_shown(url)} does not exist ({status}).", hint="Check the name and the revision.")
    if status in (408, 425, 429) or status >= 500:
        raise _Retry(f"the server answered {status}")
    raise UpstreamError(f"{_shown(url)} answered {status}.", code="download_failed")


def _total(response: httpx.Response, start: int) -> int | None:
    length = response.headers.get("content-length")
    return start + int(length) if length and length.isdigit() else None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_space(folder: Path, num_bytes: int) -> None:
    """Raises `disk_full` when that much does not fit, before anything is written."""
    if shutil.disk_usage(folder).free < num_bytes + MARGIN_BYTES:
        raise disk_full(folder, num_bytes)


def is_disk_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(folder: Path, num_bytes: int | None = None) -> NoriaError:
    need = f": {num_bytes / 1e6:.0f} MB more are needed" if num_bytes else ""
    return NoriaError(
        f"The disk of {folder} is full{need}.",
        code="disk_full",
        hint="Free some space, or set NORIA_CACHE to a folder on another disk.",
    )


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _validator(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def _forget(target: Path) -> None:
    _part(target).unlink(missing_ok=True)
    _validator(target).unlink(missing_ok=True)


def _read_validator(target: Path) -> str | None:
    try:
        value = orjson.loads(_validator(target).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return value if isinstance(value, str) else None


def _write_validator(target: Path, response: httpx.Response) -> None:
    etag = response.headers.get("etag", "")
    if etag and not etag.startswith("W/"):  # a weak one may not be used with If-Range
        _validator(target).write_bytes(orjson.dumps(etag))
    else:
        _validator(target).unlink(missing_ok=True)


def _shown(url: str) -> str:
    """The URL without a password or a signed query."""
    parsed = httpx.URL(url)
    return str(parsed.copy_with(username=None, password=None, query=None))
