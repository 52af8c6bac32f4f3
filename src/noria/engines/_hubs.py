"""What lies behind `hf:` and `ms:`: the files of a repository, with address, size and hash.

Sources: https://huggingface.co/docs/hub/api (`/api/models/{repo}/revision/{rev}?blobs=true`, `/{repo}/resolve/{rev}/{path}`)
and ModelScope's SDK (`/api/v1/models/{repo}/repo/files`, `/api/v1/models/{repo}/repo?FilePath=`).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from noria.engines._download import Remote
from noria.engines._recipes import Source, check_path, is_safe_format
from noria.errors import NotFound, PermissionDenied, UpstreamError

__all__ = ["HubAccess", "repository_files"]


@dataclass(frozen=True)
class HubAccess:
    """The hubs' addresses and the user's tokens for them."""

    hf_endpoint: str = "https://huggingface.co"
    hf_token: str | None = field(default=None, repr=False)
    ms_endpoint: str = "https://www.modelscope.cn"
    ms_token: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> HubAccess:
        """The variables that the hubs' own tools read."""
        domain = environ.get("MODELSCOPE_DOMAIN")
        if domain and "://" not in domain:
            domain = f"https://{domain}"
        return cls(
            (environ.get("HF_ENDPOINT") or cls.hf_endpoint).rstrip("/"),
            environ.get("HF_TOKEN") or None,
            (domain or cls.ms_endpoint).rstrip("/"),
            environ.get("MODELSCOPE_API_TOKEN") or None,
        )


def repository_files(client: httpx.Client, source: Source, access: HubAccess) -> dict[str, Remote]:
    """The files that the source means, by their path in the repository."""
    listed = _hugging_face(client, source, access) if source.scheme == "hf" else _model_scope(client, source, access)
    names = frozenset(listed)
    safe = {check_path(name): remote for name, remote in listed.items() if is_safe_format(name, names)}
    if source.path:
        chosen = {name: remote for name, remote in safe.items() if fnmatch.fnmatchcase(name, source.path)}
    else:
        # Repositories hold the same weights many times over in these two; the user says which one is meant.
        chosen = {name: remote for name, remote in safe.items() if not name.endswith((".gguf", ".onnx"))}
        if not any(name.endswith((".safetensors", ".xml")) for name in chosen):
            chosen = {}
    if not chosen:
        found = ", ".join(sorted(listed)[:8])
        raise NotFound(
            f"{source.name} holds no {source.path or '.safetensors or OpenVINO'} weights in a safe format.",
            hint=f"It has: {found}. Name one with {source.scheme}:{source.name}/FILE.",
        )
    return chosen


def _hugging_face(client: httpx.Client, source: Source, access: HubAccess) -> dict[str, Remote]:
    headers = {"Authorization": f"Bearer {access.hf_token}"} if access.hf_token else {}
    revision = quote(source.revision, safe="")
    url = f"{access.hf_endpoint}/api/models/{source.name}/revision/{revision}?blobs=true"
    answer = _get_json(client, url, headers, source)
    # The commit that was listed is the one fetched, even if the branch moves meanwhile.
    commit = quote(str(answer.get("sha") or source.revision), safe="")
    files: dict[str, Remote] = {}
    for entry in answer.get("siblings") or []:
        name = str(entry["rfilename"])
        lfs = entry.get("lfs") or {}
        files[name] = Remote(
            f"{access.hf_endpoint}/{source.name}/resolve/{commit}/{quote(name)}",
            headers,
            sha256=lfs.get("sha256"),
            size=lfs.get("size") or entry.get("size"),
        )
    return files


def _model_scope(client: httpx.Client, source: Source, access: HubAccess) -> dict[str, Remote]:
    headers = {"Authorization": f"Bearer {access.ms_token}"} if access.ms_token else {}
    base = f"{access.ms_endpoint}/api/v1/models/{source.name}/repo"
    revision = quote(source.revision, safe="")
    answer = _get_json(client, f"{base}/files?Revision={revision}&Recursive=true", headers, source)
    files: dict[str, Remote] = {}
    for entry in (answer.get("Data") or {}).get("Files") or []:
        if entry.get("Type") == "tree":
            continue
        name = str(entry["Path"])
        files[name] = Remote(
            f"{base}?Revision={revision}&FilePath={quote(name, safe='')}",
            headers,
            sha256=entry.get("Sha256") or None,
            size=entry.get("Size") or None,
        )
    return files


def _get_json(client: httpx.Client, url: str, headers: Mapping[str, str], source: Source) -> Any:
    hint = "Check the network and the proxy, or set HF_ENDPOINT to a mirror."
    if source.scheme == "ms":
        hint = "Check the network and the proxy."
    try:
        response = client.get(url, headers=dict(headers))
    except httpx.TransportError as error:
        raise UpstreamError(f"{httpx.URL(url).host} cannot be reached: {error}.", code="hub_unreachable", hint=hint) from error
    if response.status_code in (401, 403):
        token = "HF_TOKEN" if source.scheme == "hf" else "MODELSCOPE_API_TOKEN"
        raise PermissionDenied(f"{source.name} is private, gated or missing.", hint=f"Set {token} to a token that may read it.")
    if response.status_code == 404:
        raise NotFound(f"{source.name} has no revision {source.revision}, or does not exist.")
    if response.status_code != 200:
        raise UpstreamError(f"{httpx.URL(url).host} answered {response.status_code}.", code="hub_failed", hint=hint)
    try:
        return response.json()
    except ValueError as error:
        raise UpstreamError(f"{httpx.URL(url).host} did not answer with JSON.", code="hub_failed", hint=hint) from error
