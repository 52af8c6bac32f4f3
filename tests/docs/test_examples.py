"""The scripts in examples/ run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import NoriaServer

from .snippets import ROOT

EXAMPLES = ROOT / "examples"


def _run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("at_the_docs_server")
def test_chat() -> None:
    assert "a wheel turns" in _run("chat.py", "a wheel turns")


def test_ask_documents(at_the_docs_server: Path) -> None:
    question = "Every employee has how many days of holiday a year?"
    said = _run("ask_documents.py", str(at_the_docs_server / "my-docs"), question)
    assert "3 files indexed, 0 failed" in said
    assert "27 days" in said
    assert "[1] handbook.md, Handbook > Holidays" in said


def test_rag_by_hand(at_the_docs_server: Path) -> None:
    command = [str(Path(sys.executable).parent / "noria"), "ingest", str(at_the_docs_server / "my-docs"), "--store", "by-hand"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert "27 days" in _run("rag_by_hand.py", "by-hand", "How many days of holiday are there?")


@pytest.mark.usefixtures("at_the_docs_server")
def test_a_programs_spans_and_noria_s_are_one_tree(docs_server: NoriaServer) -> None:
    trace_id = _run("otel_app.py").split("trace ")[1].strip()
    with docs_server.client() as client:
        for _ in range(50):
            answer = client.get(f"/v1/noria/traces/{trace_id}")
            if answer.status_code == httpx.codes.OK and answer.json()["name"] == "answer a customer":
                break
            time.sleep(0.1)
    trace = answer.json()
    assert [span["name"] for span in trace["spans"]] == ["answer a customer"]
    assert [child["name"] for child in trace["spans"][0]["children"]] == ["POST /v1/chat/completions"]
    assert trace["session_id"] == "session-1"


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text()
    assert all(f'"{script.name}"' in here for script in EXAMPLES.glob("*.py"))
