"""Every runnable block of the documentation runs, against a real server with scripted models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .snippets import PAGES, ROOT, is_chinese, snippets

_RUNNABLE = [page for page in PAGES if not is_chinese(page) and any(block.not_run is None for block in snippets(page))]
_BIN = Path(sys.executable).parent


@pytest.mark.slow
@pytest.mark.parametrize("page", _RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, at_the_docs_server: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in snippets(page):
        if block.not_run is not None:
            continue
        if block.language == "python":
            # Empty lines in front: a traceback then points at the line of the page.
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)
        else:
            _bash(block.code, f"{page.name}:{block.line}")


def _bash(code: str, where: str) -> None:
    env = {**os.environ, "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{where} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"


def test_most_blocks_are_run() -> None:
    """A page may mark what it cannot run, but that stays the exception."""
    found = [block for page in PAGES for block in snippets(page)]
    assert len([block for block in found if block.not_run is None]) > len(found) / 2
