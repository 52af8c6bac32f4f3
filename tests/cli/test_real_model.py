"""From nothing running to a cited answer, with the default models: what a beginner does first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = pytest.mark.real_model


def test_up_ingest_ask(run: Run, tmp_path: Path) -> None:
    home, pages = tmp_path / "home", tmp_path / "pages"
    pages.mkdir()
    (pages / "wheel.md").write_text("# Norias\n\nThe norias of Hama in Syria are the most famous ones.\n")
    (pages / "水车.md").write_text("# 水车\n\n叙利亚哈马的水车最为有名。\n")
    command = [sys.executable, "-m", "noria.cli", "up", "--home", str(home), "--port", "0", "--no-console"]
    environment = {name: value for name, value in os.environ.items() if name not in {"NORIA_HOME", "NORIA_URL"}}
    with (tmp_path / "up.txt").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        deadline = time.monotonic() + 100
        while "noria ask" not in (tmp_path / "up.txt").read_text():
            assert process.poll() is None, (tmp_path / "up.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert run("ingest", pages, "-s", "handbook", "--home", home).exit_code == 0

        written = run("ask", "Where are the most famous norias?", "-s", "handbook", "--home", home)
        assert written.exit_code == 0, written.output
        assert "[1] wheel.md" in written.stdout
        assert "/v1/noria/traces/" in written.stderr

        quoted = run("ask", "哪里的水车最有名？", "-s", "handbook", "--home", home)
        assert "叙利亚哈马的水车最为有名。" in quoted.stdout
        assert "extractive" in quoted.stdout
        assert "水车.md" in quoted.stdout

        absent = run("ask", "Who won the football world cup in 1998?", "-s", "handbook", "--home", home)
        assert "absent" in absent.stdout

        sick = run("doctor", "--offline", "--home", home)
        assert sick.exit_code == 0, sick.stdout
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
