"""Child processes see what they need of the server's environment, and no secret."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from noria.engines import environment_of_a_command, environment_of_our_own
from noria.engines._prepare import prepare  # pyright: ignore[reportPrivateUsage]

SECRETS = ("NORIA_SECRET_KEY", "NORIA_DATABASE_URL", "OPENAI_API_KEY", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD")


def test_no_child_sees_a_secret() -> None:
    given: dict[str, str] = dict.fromkeys(
        (*SECRETS, "PATH", "CUDA_VISIBLE_DEVICES", "HF_TOKEN", "HTTPS_PROXY", "SLURM_JOB_ID"), "x"
    )
    assert set(environment_of_our_own(given)) == {"PATH", "CUDA_VISIBLE_DEVICES"}
    assert set(environment_of_a_command(given)) == set(given) - set(SECRETS)


def test_a_preparation_sees_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nenv > "$5/seen"\n')
    python.chmod(0o755)
    for name in (*SECRETS, "HF_TOKEN"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setattr(sys, "executable", str(python))
    prepare("none", tmp_path, tmp_path)
    seen = (tmp_path / "seen").read_text()
    assert "PATH=" in seen
    assert "hush" not in seen
