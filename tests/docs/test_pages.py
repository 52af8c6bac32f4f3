"""Generated pages are current, and English and Chinese have the same pages and the same examples."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from .snippets import ROOT, is_chinese, snippets

DOCS = ROOT / "docs"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noria_docs_generate", DOCS / "_generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_generated_parts_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert _generator().render(text) == text, "run: python docs/_generate.py"


@pytest.mark.skipif(not (DOCS / "reference" / "cli.md").exists(), reason="the page is not there yet")
def test_the_command_lines_page_is_current() -> None:
    from noria.cli._reference import render

    assert (DOCS / "reference" / "cli.md").read_text(encoding="utf-8") == render(), (
        "run: python -m noria.cli._reference > docs/reference/cli.md"
    )


ENGLISH = [ROOT / "README.md", *sorted(page for page in DOCS.glob("*.md") if not is_chinese(page))]
_COMMENT = re.compile(r"\s*#[^\n]*")


@pytest.mark.parametrize("page", ENGLISH, ids=lambda page: page.name)
def test_a_page_exists_in_both_languages_with_the_same_examples(page: Path) -> None:
    chinese = page.with_name(page.stem + (".zh-CN.md" if page.name == "README.md" else ".zh.md"))
    assert _code(chinese) == _code(page)


def _code(page: Path) -> list[tuple[str, bool, str]]:
    """Each block's language, whether it is run, and its code without comments, which are translated."""
    return [(block.language, block.not_run is None, _COMMENT.sub("", block.code).strip()) for block in snippets(page)]


_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_TOP = [ROOT / name for name in ("README.md", "README.zh-CN.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")]


@pytest.mark.parametrize("page", _TOP, ids=lambda page: page.name)
def test_links_and_pictures_of_the_top_pages_exist(page: Path) -> None:
    """Those below docs/ are checked by MkDocs."""
    targets = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in targets if not (page.parent / link).exists()] == []
