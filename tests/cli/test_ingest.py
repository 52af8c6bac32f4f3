"""`noria ingest` and what follows it, over a real server with models that need no weights."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from noria.cli._api import Api
from noria.cli._file_choice import Choice, find_files, path_attribute
from noria.errors import InvalidRequest
from tests.conftest import NoriaServer

from .conftest import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "文档"
    (made / "sub").mkdir(parents=True)
    (made / ".hidden").mkdir()
    (made / "wheel.md").write_text("# Wheels\n\nA noria lifts water.\n")
    (made / "sub" / "水车.md").write_text("# 水车\n\n水车提水。\n")
    (made / ".hidden" / "x.md").write_text("no")
    (made / "picture.png").write_bytes(b"x")
    (made / "empty.txt").touch()
    return made


def test_files_are_found_sorted_and_the_rest_counted(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)
    found = find_files(Choice((folder, folder / "wheel.md")), {"md", "txt"})
    assert [file.path.name for file in found.files] == ["水车.md", "wheel.md"]
    assert found.skipped == Counter({".png": 1, "empty": 1})
    assert [file.path.name for file in find_files(Choice((folder,), recursive=False, glob="wh*"), {"md"}).files] == ["wheel.md"]
    with pytest.raises(InvalidRequest, match="does not exist"):
        find_files(Choice((folder / "gone",)), {"md"})


def test_a_long_path_still_fits_an_attribute_and_stays_its_own() -> None:
    long = [Path("/" + "深" * 600 + name) for name in ("a", "b")]
    keys = {path_attribute(path) for path in long}
    assert len(keys) == 2
    assert all(len(key) <= 512 for key in keys)


def test_only_what_is_new_or_changed_is_sent(run: Run, server: NoriaServer, folder: Path) -> None:
    def ingest(*more: str) -> dict[str, list[str]]:
        result = run("ingest", folder, "--store", "diff", "--home", server.home, "--json", *more)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def stored() -> list[str]:
        return sorted(
            row["filename"] for row in json.loads(run("stores", "files", "diff", "--home", server.home, "--json").stdout)
        )

    first = ingest("--attr", "team=hydro")
    assert len(first["added"]) == 2
    assert first["skipped"] == {".png": 1, "empty": 1}
    again = ingest("--attr", "team=water")
    assert (len(again["unchanged"]), again["added"], again["replaced"]) == (2, [], [])
    rows = json.loads(run("stores", "files", "diff", "--home", server.home, "--json").stdout)
    assert {row["attributes"]["team"] for row in rows} == {"water"}

    before = {row["filename"]: row["id"] for row in rows}
    (folder / "wheel.md").write_text("# Wheels\n\nAn overshot wheel falls.\n")
    (folder / "sub" / "水车.md").unlink()
    changed = ingest()
    assert [Path(path).name for path in changed["replaced"]] == ["wheel.md"]
    assert stored() == ["wheel.md", "水车.md"]
    assert run("files", "list", "--home", server.home, "--json").stdout.count(before["wheel.md"]) == 0
    pruned = ingest("--prune")
    assert [Path(path).name for path in pruned["removed"]] == ["水车.md"]
    assert stored() == ["wheel.md"]
    found = json.loads(run("search", "overshot wheel", "-s", "diff", "--home", server.home, "--json").stdout)
    assert "overshot" in found[0]["content"][0]["text"]


def test_prune_takes_out_only_what_is_gone_from_the_disk(run: Run, server: NoriaServer, folder: Path) -> None:
    def ingest(*more: str) -> dict[str, list[str]]:
        return json.loads(run("ingest", folder, "--store", "pruned", "--home", server.home, "--json", *more).stdout)

    (folder / "notes.txt").write_text("Notes on wheels.")
    assert len(ingest()["added"]) == 3
    assert ingest("--glob", "*.txt", "--prune")["removed"] == []
    assert ingest("--no-recursive", "--prune")["removed"] == []
    (folder / "sub" / "水车.md").unlink()
    assert [Path(path).name for path in ingest("--glob", "*.txt", "--prune")["removed"]] == ["水车.md"]


def test_waiting_does_not_list_the_files_again_and_again(
    run: Run, server: NoriaServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    pages = Api.pages

    def counted(self: Api, path: str, **more: Any) -> Iterator[dict[str, Any]]:
        asked.append(path.rpartition("/")[2])
        return pages(self, path, **more)

    monkeypatch.setattr(Api, "pages", counted)
    assert run("ingest", folder, "--store", "watched", "--home", server.home).exit_code == 0
    assert asked.count("files") == 2


@pytest.mark.parametrize("count", [2, 30])
def test_other_clients_files_are_not_waited_for(
    run: Run, server: NoriaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    get, pages = Api.get, Api.pages

    def busy(self: Api, path: str, **more: Any) -> Any:
        found = get(self, path, **more)
        if "file_counts" in found:
            found["file_counts"]["in_progress"] += 100
        return found

    def with_job(self: Api, path: str, **more: Any) -> Iterator[dict[str, Any]]:
        yield from pages(self, path, **more)
        if path == "/v1/noria/jobs":
            store = get(self, f"/v1/vector_stores/busy-{count}")
            yield {"subject": store["id"], "detail": {}}

    monkeypatch.setattr(Api, "get", busy)
    monkeypatch.setattr(Api, "pages", with_job)
    for number in range(count):
        (tmp_path / f"{number}.txt").write_text(f"Note {number}.")
    result = run("ingest", tmp_path, "--store", f"busy-{count}", "--home", server.home, "--json")
    assert len(json.loads(result.stdout)["added"]) == count


def test_a_file_is_gone_only_if_it_can_be_seen_to_be(folder: Path) -> None:
    deep = folder
    for _ in range(6):
        deep = deep / ("d" * 100)
    deep.mkdir(parents=True)
    (deep / "long.md").write_text("Deep.")
    (deep / "other.md").write_text("Deep.")
    keys = {file.path.name: file.key for file in find_files(Choice((folder,)), {"md"}).files}
    (folder / "wheel.md").unlink()
    (deep / "other.md").unlink()
    found = find_files(Choice((folder,), glob="none"), {"md"})
    assert {name for name, key in keys.items() if found.is_gone(key)} == {"wheel.md", "other.md"}
    assert not found.is_gone(str(folder.parent / "elsewhere.md"))
    assert not found.is_gone(f"{folder}x.md")


def test_a_folder_that_cannot_be_read_is_a_failure_and_not_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = Path.iterdir

    def iterdir(self: Path) -> Iterator[Path]:
        if self.name == "sub":
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found = find_files(Choice((folder,)), {"md"})
    assert [file.path.name for file in found.files] == ["wheel.md"]
    assert found.unreadable == {str(folder / "sub"): "Permission denied"}


def test_a_name_that_is_not_utf8_is_a_failure_and_not_the_end(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.md")).write_text("Coffee.")
    found = find_files(Choice((folder,)), {"md"})
    assert len(found.files) == 2
    assert list(found.unreadable) == [f"{folder}/caf\ufffd.md"]


def test_a_broken_file_is_named_and_does_not_stop_the_rest(run: Run, server: NoriaServer, folder: Path) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 no")
    result = run("ingest", folder, "--store", "broken", "--home", server.home)
    assert result.exit_code == 1
    assert "2 added, 1 failed" in result.stdout
    assert "broken.pdf: the PDF is damaged" in result.stderr


def test_a_store_that_must_exist(run: Run, server: NoriaServer, folder: Path) -> None:
    result = run("ingest", folder, "--store", "none", "--no-create", "--home", server.home)
    assert result.exit_code == 1
    assert "no vector store 'none'" in result.stderr


def test_a_run_takes_up_what_a_cancelled_job_left(run: Run, server: NoriaServer, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.md").write_text("\n\n".join(f"## {n}\n\nwheel {number} {n} " + "water " * 60 for n in range(10)))
    sent = run("ingest", folder, "--store", "cut", "--no-wait", "--home", server.home, "--json")
    assert sent.exit_code == 0
    jobs = json.loads(run("jobs", "list", "--home", server.home, "--json").stdout)
    for job in jobs:
        if job["status"] in {"queued", "running"}:
            run("jobs", "cancel", job["id"], "--home", server.home)
    again = run("ingest", folder, "--store", "cut", "--home", server.home, "--json")
    assert again.exit_code == 0, again.output
    result = json.loads(again.stdout)
    assert len(result["added"]) + len(result["unchanged"]) == 40
    states = {row["status"] for row in json.loads(run("stores", "files", "cut", "--home", server.home, "--json").stdout)}
    assert states == {"completed"}


def test_the_upload_stays_while_another_store_has_it(run: Run, server: NoriaServer, folder: Path) -> None:
    run("ingest", folder / "wheel.md", "--store", "one", "--home", server.home)
    file_id = json.loads(run("stores", "files", "one", "--home", server.home, "--json").stdout)[0]["id"]
    with server.client() as client:
        other = client.post("/v1/vector_stores", json={"name": "two", "file_ids": [file_id]}).json()
    (folder / "wheel.md").write_text("Changed.")
    run("ingest", folder / "wheel.md", "--store", "one", "--home", server.home)
    with server.client() as client:
        assert client.get(f"/v1/vector_stores/{other['id']}/files/{file_id}").status_code == 200


def test_what_happened_can_be_read(run: Run, server: NoriaServer, folder: Path) -> None:
    run("ingest", folder, "--store", "seen", "--home", server.home)
    chat = run("chat", "scripted", "-m", "Hello", "--home", server.home)
    assert (chat.exit_code, bool(chat.stdout.strip())) == (0, True)
    for arguments in (
        ("stores", "list"), ("stores", "show", "seen"), ("files", "list"), ("jobs", "list"), ("engines", "list"),
        ("models", "list"), ("models", "show", "scripted"), ("traces", "list"), ("traces", "show"), ("traces", "stats"),
        ("config", "credential"), ("keys", "list"), ("tokens", "Hello"), ("search", "water", "-s", "seen", "--explain"),
    ):  # fmt: skip
        result = run(*arguments, "--home", server.home)
        assert result.exit_code == 0, f"{arguments}: {result.output}"
        assert all(cell_len(line) <= 80 for line in result.stdout.splitlines()), result.stdout
        data = run(*arguments, "--home", server.home, "--json")
        assert json.loads(data.stdout) is not None


def test_models_and_routes_are_added_and_removed(run: Run, server: NoriaServer) -> None:
    added = run("models", "add", "mix", "--route", "fallback", "scripted", "openai/gpt-4o-mini", "--home", server.home)
    assert "scripted then openai/gpt-4o-mini" in added.stdout
    assert run("models", "try", "mix", "--home", server.home).exit_code == 0
    assert run("models", "remove", "mix", "--yes", "--home", server.home).exit_code == 0
    assert run("models", "show", "mix", "--home", server.home).exit_code == 1
