"""The wheel holds what `noria up` needs beside the code: the documentation, the catalogue, the migrations."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .snippets import ROOT


@pytest.mark.slow
def test_the_wheel_is_complete(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, timeout=110)
    with zipfile.ZipFile(next(tmp_path.glob("noria_llm-*.whl"))) as wheel:
        names = set(wheel.namelist())
    pages = {f"noria/_docs/{page.relative_to(ROOT / 'docs')}" for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= names
    assert {"noria/models/catalogue.toml", "noria/store/migrations/env.py"} <= names
    assert not [name for name in names if name.startswith("noria/_docs/") and not name.endswith(".md")]
