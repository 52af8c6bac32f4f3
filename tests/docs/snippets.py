"""Takes the runnable blocks out of Markdown pages.

Every fenced block of `python` or `bash` is run, unless the line before it is `<!-- not run: reason -->`. Blocks of a page run in
order: its Python shares one namespace, all share one working folder. Other languages (`text`, `json`, `toml` …) are shown only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Snippet", "is_chinese", "snippets"]

ROOT = Path(__file__).parent.parent.parent
_TOP = ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
PAGES = sorted([*(ROOT / name for name in _TOP), *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_SKIP = re.compile(r"<!-- not run: ([^\n]+) -->\s*\Z")


@dataclass(frozen=True)
class Snippet:
    page: Path
    line: int
    language: str
    code: str
    not_run: str | None
    """The reason why it cannot be run; None if it is."""


def is_chinese(page: Path) -> bool:
    """Chinese pages hold the same code as the English ones, so they are compared with them instead of run."""
    return page.name.endswith((".zh.md", ".zh-CN.md"))


def snippets(page: Path) -> list[Snippet]:
    """The page's blocks of Python and bash, in order."""
    text = page.read_text(encoding="utf-8")
    found: list[Snippet] = []
    for match in _FENCE.finditer(text):
        if match["language"] not in {"python", "bash", "sh"}:
            continue
        skip = _SKIP.search(text, 0, match.start())
        indent = len(match["indent"])
        code = "".join(line[indent:] if line.strip() else line for line in match["code"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 2
        found.append(Snippet(page, line, match["language"], code, skip[1] if skip else None))
    return found
