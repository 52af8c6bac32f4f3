"""HTML: headings, paragraphs, lists, tables and code; scripts, styles, navigation and footers are dropped.

A form is a container like any other: whole pages stand in one (ASP.NET). Its fields and buttons are dropped.

Parsed by selectolax (Lexbor, the WHATWG algorithm), so that any bytes are a document; walked with a stack of our own,
because hostile pages nest deeper than Python recurses.
"""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from noria.knowledge._document import Document, DocumentBuilder, Limits, join_cells
from noria.knowledge._encoding import decode_text

__all__ = ["load"]

_DROPPED = frozenset(
    """
    script style noscript template nav footer aside svg iframe object embed canvas audio video
    button select option input textarea dialog head
    """.split()  # noqa: SIM905
)
_DROPPED_ROLES = frozenset({"navigation", "contentinfo", "search", "menu", "banner"})
_BLOCKS = frozenset(
    """
    p div section article main header body html blockquote figure figcaption address details summary
    fieldset center dl dt dd hr tbody thead tr td th caption
    """.split()  # noqa: SIM905
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = frozenset({"ul", "ol"})
_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([a-zA-Z0-9_\-:]+)""", re.IGNORECASE)
_BLANKS = re.compile(r"[ \t\n\r\f\xa0]+")
_AROUND_BREAK = re.compile(r" *\n *")
_BREAK = "\x0b"  # a <br>, until white space is collapsed; clean_text has removed it from the source


def load(data: bytes, *, filename: str, limits: Limits) -> Document:
    declared = _META_CHARSET.search(data[:4096])
    text = decode_text(data, filename=filename, declared=declared.group(1).decode("ascii") if declared else None)
    tree = LexborHTMLParser(text)
    title = tree.css_first("title")
    builder = DocumentBuilder(format="html", filename=filename, limits=limits)
    root = tree.css_first("main") or tree.body or tree.root
    if root is not None:
        _Walker(builder).walk(root)
    return builder.finish(title=title.text() if title is not None else "")


class _Walker:
    """Collects inline text and emits a block whenever a block element begins or ends."""

    def __init__(self, builder: DocumentBuilder) -> None:
        self._builder = builder
        self._inline: list[str] = []
        self._items: list[str] = []
        self._list_depth = 0
        self._heading = 0

    def walk(self, root: LexborNode) -> None:
        stack: list[tuple[LexborNode, bool]] = [(root, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                self._leave(node.tag or "")
                continue
            if not self._enter(node):
                continue
            stack.append((node, True))
            children: list[tuple[LexborNode, bool]] = []
            child = node.child
            while child is not None:
                children.append((child, False))
                child = child.next
            stack.extend(reversed(children))
        self._flush()
        self._flush_list()

    def _enter(self, node: LexborNode) -> bool:
        """Whether to walk what is inside."""
        tag = node.tag or ""
        if tag == "-text":
            self._inline.append(node.text_content or "")
            return False
        if tag.startswith(("-", "!")) or tag in _DROPPED or _is_hidden(node):
            return False
        if tag == "br":
            self._inline.append(_BREAK)
            return False
        if tag == "pre":
            self._flush_all()
            self._builder.add("code", node.text(deep=True))
            return False
        if tag == "table" and _is_data_table(node):
            self._flush_all()
            self._add_table(node)
            return False
        if tag in _LISTS:
            self._flush()
            self._list_depth += 1
        elif tag in _HEADINGS:
            self._flush_all()
            self._heading = _HEADINGS[tag]
        elif tag == "li" or tag in _BLOCKS or tag == "table":
            self._flush()
        return True

    def _leave(self, tag: str) -> None:
        if tag in _HEADINGS:
            self._flush()
            self._heading = 0
        elif tag in _LISTS:
            self._flush()
            self._list_depth = max(0, self._list_depth - 1)
            if not self._list_depth:
                self._flush_list()
        elif tag == "li" or tag in _BLOCKS or tag == "table":
            self._flush()

    def _flush(self) -> None:
        text = _collapse("".join(self._inline))
        self._inline.clear()
        if not text:
            return
        if self._heading:
            self._builder.add("heading", text.replace("\n", " "), level=self._heading)
        elif self._list_depth:
            indent = "  " * min(self._list_depth - 1, 8)
            self._items.append(f"{indent}- {text}")
        else:
            self._builder.add("paragraph", text)

    def _flush_list(self) -> None:
        if self._items:
            self._builder.add("list", "\n".join(self._items))
            self._items.clear()

    def _flush_all(self) -> None:
        self._flush()
        self._flush_list()

    def _add_table(self, table: LexborNode) -> None:
        rows = [_cells(row) for row in table.css("tr")]
        lines = [line for line in (join_cells(row) for row in rows) if line]
        if not lines:
            return
        first = table.css_first("tr")
        has_header = first is not None and len(lines) > 1 and first.css_first("th") is not None
        self._builder.add("table", "\n".join(lines), header=lines[0] if has_header else "")


def _cells(row: LexborNode) -> list[str]:
    cells: list[str] = []
    child = row.child
    while child is not None:
        if child.tag in ("td", "th"):
            cells.append(child.text(deep=True, separator=" "))
        child = child.next
    return cells


def _is_data_table(table: LexborNode) -> bool:
    """Tables that lay a page out (others nested, headings, one column) are walked like any container."""
    if table.css_first("table table, h1, h2, h3, h4, pre, ul, ol") is not None:
        return False
    return any(len(_cells(row)) > 1 for row in table.css("tr")[:5])


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return bool(attributes) and (
        "hidden" in attributes or attributes.get("aria-hidden") == "true" or attributes.get("role") in _DROPPED_ROLES
    )


def _collapse(text: str) -> str:
    return _AROUND_BREAK.sub("\n", _BLANKS.sub(" ", text).replace(_BREAK, "\n")).strip()
