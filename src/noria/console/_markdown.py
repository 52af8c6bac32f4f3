"""Markdown of models and documents as safe HTML: raw HTML is shown as text, pictures as links, and only web links are links.

The page's content security policy and NiceGUI's DOMPurify stand behind it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline

__all__ = ["answer_html", "markdown_html", "marked_html", "squeezed"]

# Private-use characters that stand for a citation's marker while Markdown is being rendered; taken out of the text before.
_OPEN, _CLOSE = "\ue000", "\ue001"
_MARKER = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_WEB = re.compile(r"https?://", re.IGNORECASE)


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True}).enable(["table", "strikethrough"])
    parser.validateLink = lambda url: bool(_WEB.match(url))  # pyright: ignore[reportAttributeAccessIssue]
    parser.inline.ruler.at("image", _no_image)
    renderer: Any = parser.renderer
    for kind in ("text", "code_inline", "code_block", "fence"):  # where a marker may stand; in an attribute it stays a character
        plain = renderer.rules.get(kind) or getattr(renderer, kind)
        renderer.rules[kind] = _with_markers(plain)
    return parser


def _with_markers(plain: Callable[..., str]) -> Callable[..., str]:
    def render(*given: Any) -> str:
        token = given[0][given[1]]
        token.info = _plain(token.info)  # of a code block's fence: it becomes an attribute
        return _MARKER.sub(r'<a class="cite" data-cite="\1" href="#cite-\1">\1</a>', plain(*given))

    return render


def _no_image(state: StateInline, silent: bool) -> bool:
    """`![…](…)` stays the text it is: loading a picture would tell its server that someone reads this."""
    return False


def markdown_html(text: str) -> str:
    return _parser().render(_plain(text))


def answer_html(text: str, citations: Iterable[tuple[int, int]]) -> str:
    """An answer with its citations, pairs of position and number, as small buttons with `data-cite`."""
    parts: list[str] = []
    last = 0
    for index, number in sorted(set(citations)):
        place = min(max(index, last), len(text))
        # Noria's answers carry their numbers in the text, `… [2]`; the button takes that one's place.
        before = text[last:place].removesuffix(f"[{number}]")
        parts += [_plain(before), f"{_OPEN}{number}{_CLOSE}"]
        last = place
    parts.append(_plain(text[last:]))
    return _parser().render("".join(parts))


def _plain(text: str) -> str:
    return text.replace(_OPEN, "").replace(_CLOSE, "")


def squeezed(text: str) -> str:
    """Without blank lines, for a list of passages."""
    return re.sub(r"\n\s*\n+", "\n", text.strip())


def marked_html(text: str, words: Iterable[str]) -> str:
    """Plain text as HTML with the words marked, wherever they stand, in any case."""
    wanted = sorted({word for word in words if word.strip()}, key=len, reverse=True)
    if not wanted:
        return html.escape(text)
    # Latin words from their beginning, so that "leave" marks "leaves" too but not "sleave"; others anywhere.
    pattern = re.compile("|".join((r"\b" if word[0].isascii() else "") + re.escape(word) for word in wanted), re.IGNORECASE)
    parts: list[str] = []
    last = 0
    for match in pattern.finditer(text):
        parts += [html.escape(text[last : match.start()]), "<mark>", html.escape(match.group()), "</mark>"]
        last = match.end()
    return "".join([*parts, html.escape(text[last:])])
