"""`assert_eval` in a pytest of its own, against a real server."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.conftest import NoriaServer

SUITE = """
EXACT = {"type": "string_check", "name": "exact", "input": "{{sample.output_text}}", "reference": "{{item.expected}}",
         "operation": "eq"}
ROWS = [{"input": f"say {n}", "expected": f"say {n}"} for n in range(10)]
WRONG = [{**row, "expected": "no"} for row in ROWS]

def test_good(assert_eval):
    outcome = assert_eval(model="scripted", data=ROWS, testing_criteria=[EXACT])
    assert outcome.pass_rate == 1

def test_short(assert_eval):
    assert_eval(model="scripted", data=ROWS + WRONG, testing_criteria=[EXACT], min_pass_rate=0.6)

def test_not_better(assert_eval):
    assert_eval(model="scripted", data="rows.jsonl", testing_criteria=[EXACT], better_than="scripted")

def test_wrong_model(assert_eval):
    assert_eval(model="nope", data=ROWS, testing_criteria=[EXACT])
"""


def pytest_of(folder: Path, *arguments: str) -> str:
    # In a checkout that was installed before the entry point existed, it is named by hand.
    plugin = [] if entry_points(group="pytest11", name="noria") else ["-p", "noria.pytest"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_evals_as_tests(server: NoriaServer, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "expected": "a"}\n{"item": {"input": "b", "expected": "c"}}\n')
    said = pytest_of(tmp_path, "--noria-url", server.url)
    assert "3 failed, 1 passed" in said
    assert "10 of 20 rows passed (50.0%; 95 % interval 29.9% to 70.1%); at least 60.0% were wanted." in said
    assert 'row 10 (exact 0): "say 0"' in said
    assert "scripted is not better than scripted: 0 wins, 0 losses, 2 ties, p = 1." in said
    assert "Noria answered 404" in said
    assert "nope" in said.partition("Noria answered 404")[2].splitlines()[0]
    assert "Traceback" not in said


def test_it_costs_nothing_unless_used(tmp_path: Path) -> None:
    code = (
        "import sys, noria.pytest; print([name for name in ('httpx', 'pydantic', 'sqlalchemy', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
