"""Markdown (CommonMark and GitHub's tables): the file is the canonical text, markup included, comments not.

Only the block structure is parsed, with markdown-it-py; inline markup stays as it is, since models read it well and
spans then map to the very file. Source: https://spec.commonmark.org/0.31.2/
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from noria.knowledge._document import BlockKind, Document, DocumentBuilder, Limits
from noria.knowledge._encoding import decode_text

__all__ = ["load"]

_KINDS: dict[str, BlockKind] = {
    "paragraph_open": "paragraph",
    "html_block": "paragraph",
    "fence": "code",
    "code_block": "code",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "table_open": "table",
}
_CLOSED_BY = {"bullet_list_open": "bullet_list_close", "ordered_list_open": "ordered_list_close", "table_open": "table_close"}
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE_LINE = re.compile(r"^title:[ \t]*[\"']?(.+?)[\"']?[ \t]*$", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_MARKUP = re.compile(r"[`*]|\{#[^}]*\}|</?[a-zA-Z][^>]*>")


def load(data: bytes, *, filename: str, limits: Limits) -> Document:
    text = _without_comments(decode_text(data, filename=filename))
    builder = DocumentBuilder(format="md", filename=filename, limits=limits, source=text)
    front = _FRONT_MATTER.match(text)
    title = _TITLE_LINE.search(front.group(1) or "") if front else None
    offset = front.end() if front else 0
    _mark_blocks(builder, text, offset)
    return builder.finish(title=title.group(1) if title else "")


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def _without_comments(text: str) -> str:
    """Without HTML comments that stand alone: they are notes to editors, and nobody should be quoted one."""
    if "<!--" not in text:
        return text
    lines = text.splitlines(keepends=True)
    for token in _parser().parse(text):
        content = token.content.strip()
        if token.type == "html_block" and token.map and content.startswith("<!--") and content.endswith("-->"):
            lines[token.map[0] : token.map[1]] = [""] * (token.map[1] - token.map[0])
    return "".join(lines)


def _mark_blocks(builder: DocumentBuilder, text: str, offset: int) -> None:
    tokens = _parser().parse(text[offset:])
    line_starts = [offset, *(match.end() for match in re.compile("\n").finditer(text, offset))]
    line_starts.append(len(text))

    def span(token: Token) -> tuple[int, int]:
        assert token.map is not None
        start, end = line_starts[token.map[0]], line_starts[min(token.map[1], len(line_starts) - 1)]
        return start, start + len(text[start:end].rstrip())

    index = 0
    while index < len(tokens):
        token = tokens[index]
        if token.type == "heading_open":
            start, end = span(token)
            builder.mark("heading", start, end, level=int(token.tag[1]), title=_plain(tokens[index + 1].content))
        elif token.type in _KINDS and token.map is not None:
            start, end = span(token)
            if end > start:
                header = _first_line(text[start:end]) if token.type == "table_open" else ""
                builder.mark(_KINDS[token.type], start, end, header=header)
            index = _skip_nested(tokens, index)
        index += 1


def _skip_nested(tokens: Sequence[Token], index: int) -> int:
    """The index of the token that closes the one at `index` (itself when it has no inside)."""
    closing = _CLOSED_BY.get(tokens[index].type)
    if closing is None:
        return index
    level = tokens[index].level
    for position in range(index + 1, len(tokens)):
        if tokens[position].type == closing and tokens[position].level == level:
            return position
    return len(tokens) - 1


def _plain(markdown: str) -> str:
    return " ".join(_MARKUP.sub("", _LINK.sub(r"\1", markdown)).split())


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0].strip()
