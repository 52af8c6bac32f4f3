"""One file over HTTP: whole or not at all, whatever the network does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import httpx
import pytest
from file_server import FileServer, sha256
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.engines import _download
from noria.engines._download import Remote, download
from noria.errors import NoriaError, NotFound, PermissionDenied, UpstreamError

BODY = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download.time, "sleep", lambda _: None)


def fetch(remote: Remote, target: Path) -> tuple[str, list[tuple[int, int | None]]]:
    progress: list[tuple[int, int | None]] = []
    with httpx.Client(trust_env=False, follow_redirects=True) as client:
        digest = download(client, remote, target, lambda done, total: progress.append((done, total)))
    return digest, progress


def only(target: Path) -> bool:
    return [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_file_arrives_with_progress(server: FileServer, tmp_path: Path) -> None:
    server.add("/f", BODY)
    digest, progress = fetch(Remote(f"{server.url}/f"), tmp_path / "f")
    assert digest == sha256(BODY)
    assert (tmp_path / "f").read_bytes() == BODY
    assert progress[-1] == (len(BODY), len(BODY))
    assert only(tmp_path / "f")


@pytest.mark.parametrize("known", ["hash", "etag"])
def test_a_broken_connection_is_resumed(server: FileServer, tmp_path: Path, known: str) -> None:
    server.add("/f", BODY, cut_after=[100_000, 200_000], etag='"v1"' if known == "etag" else None)
    remote = Remote(f"{server.url}/f", sha256=sha256(BODY) if known == "hash" else None)
    fetch(remote, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY
    ranges = [headers.get("range") for headers in server.requests("/f")]
    assert ranges == [None, "bytes=100000-", "bytes=300000-"]
    assert only(tmp_path / "f")


def test_two_versions_are_never_joined(server: FileServer, tmp_path: Path) -> None:
    served = server.add("/f", BODY, etag='"v1"', cut_after=[1000] * 5)
    with pytest.raises(UpstreamError):
        fetch(Remote(f"{server.url}/f"), tmp_path / "f")
    served.body, served.etag = BODY[::-1], '"v2"'
    fetch(Remote(f"{server.url}/f"), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY[::-1]


def test_without_hash_or_validator_nothing_is_resumed(server: FileServer, tmp_path: Path) -> None:
    server.add("/f", BODY, cut_after=[1000])
    fetch(Remote(f"{server.url}/f"), tmp_path / "f")
    assert [headers.get("range") for headers in server.requests("/f")] == [None, None]


def test_a_server_without_ranges(server: FileServer, tmp_path: Path) -> None:
    server.add("/f", BODY, ranges=False, cut_after=[5000])
    fetch(Remote(f"{server.url}/f", sha256=sha256(BODY)), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_leftover_longer_than_the_file(server: FileServer, tmp_path: Path) -> None:
    server.add("/f", BODY)
    (tmp_path / "f.part").write_bytes(b"x" * (len(BODY) + 10))
    fetch(Remote(f"{server.url}/f", sha256=sha256(BODY)), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_damaged_leftover_costs_one_more_attempt(server: FileServer, tmp_path: Path) -> None:
    server.add("/f", BODY)
    (tmp_path / "f.part").write_bytes(b"x" * 5000)
    fetch(Remote(f"{server.url}/f", sha256=sha256(BODY)), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


def test_another_content_is_refused_and_not_kept(server: FileServer, tmp_path: Path) -> None:
    server.add("/f", BODY)
    with pytest.raises(UpstreamError, match="not what was expected") as caught:
        fetch(Remote(f"{server.url}/f", sha256="0" * 64), tmp_path / "f")
    assert caught.value.code == "unexpected_content"
    assert list(tmp_path.iterdir()) == []


def test_more_than_was_announced_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.add("/f", BODY)
    with pytest.raises(UpstreamError):
        fetch(Remote(f"{server.url}/f", size=1000), tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_statuses(server: FileServer, tmp_path: Path) -> None:
    server.add("/f", BODY, statuses=[503, 429, 500])
    fetch(Remote(f"{server.url}/f"), tmp_path / "f")
    with pytest.raises(NotFound):
        fetch(Remote(f"{server.url}/none"), tmp_path / "g")
    server.add("/closed", BODY, statuses=[401])
    with pytest.raises(PermissionDenied, match="HF_TOKEN"):
        fetch(Remote(f"{server.url}/closed"), tmp_path / "g")


def test_a_password_in_the_address_is_not_shown(server: FileServer, tmp_path: Path) -> None:
    url = server.url.replace("://", "://me:hush@") + "/none?signature=abc"
    with pytest.raises(NotFound) as caught:
        fetch(Remote(url), tmp_path / "f")
    assert "hush" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_a_file_that_does_not_fit_is_refused_before_it_comes(server: FileServer, tmp_path: Path) -> None:
    server.add("/f", BODY)
    with pytest.raises(NoriaError, match="is full") as caught:
        fetch(Remote(f"{server.url}/f", size=10**18), tmp_path / "f")
    assert caught.value.code == "disk_full"
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 50_000), max_size=4), etag=st.booleans(), ranges=st.booleans())
def test_wherever_it_is_cut_the_file_is_whole(server: FileServer, cuts: list[int], etag: bool, ranges: bool) -> None:
    body = BODY[:100_000]
    server.add("/f", body, cut_after=list(cuts), etag='"e"' if etag else None, ranges=ranges)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "f"
        fetch(Remote(f"{server.url}/f", sha256=None if etag else sha256(body)), target)
        assert target.read_bytes() == body
        assert only(target)
