"""A training sees no secret of the server's, whosever command it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from noria.training._process import Launch, TrainingProcess  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("is_own", [True, False])
async def test_a_training_sees_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_own: bool) -> None:
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\nenv > "$(dirname "$0")/seen"\n')
    program.chmod(0o755)
    for name in ("NORIA_SECRET_KEY", "NORIA_DATABASE_URL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(sys, "executable", str(program))
    launch = Launch(None if is_own else str(program), threads=3, memory_mb=1024, compiled=tmp_path)
    process = await TrainingProcess.start("train", tmp_path, launch)
    assert await process.wait() == 0
    seen = (tmp_path / "seen").read_text()
    assert "hush" not in seen
    assert "OMP_NUM_THREADS=3" in seen
    assert "CUDA_VISIBLE_DEVICES=1" in seen
