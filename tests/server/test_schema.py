"""The OpenAPI document against the server: no 500, no undocumented answer (schemathesis)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NoriaServer


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_schemathesis_finds_no_500_and_no_undocumented_answer(server: NoriaServer, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{server.url}/openapi.json",
        "--header",
        f"Authorization: Bearer {server.token}",
        "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance",
        "--max-examples",
        "10",
        "--phases",
        "examples,coverage,fuzzing",
        "--seed",
        "7",
        "--exclude-path-regex",
        "/engines/.*/stop|/v1/noria/pulls",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[max(0, done.stdout.find("= FAILURES =")) :][:8000]
