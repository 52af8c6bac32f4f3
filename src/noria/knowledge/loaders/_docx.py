"""DOCX: paragraphs, headings by style or outline level, lists, tables, in document order.

python-docx opens the package and resolves styles; the body is walked here, because its `Paragraph.text` leaves out
inserted text (`w:ins`) and content controls (`w:sdt`). Zip bombs and XML entities are refused before anything is
parsed. Headers, footers, comments and foot notes are not extracted.
Source: ECMA-376 part 1, 17.3 (paragraphs) and 17.4 (tables).
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import docx
from docx.document import Document as DocxDocument
from docx.oxml.ns import qn

from noria.errors import NoriaError
from noria.knowledge._document import Document, DocumentBuilder, Limits, join_cells, unreadable

__all__ = ["load"]

_Element = Any  # lxml ships no types

_P, _TBL, _TR, _TC, _SDT, _SDT_CONTENT = (qn(f"w:{tag}") for tag in ("p", "tbl", "tr", "tc", "sdt", "sdtContent"))
_T, _TAB, _BR, _CR, _VAL = (qn(f"w:{tag}") for tag in ("t", "tab", "br", "cr", "val"))
_ROW_OR_CELL_WRAPPERS = frozenset({_SDT, _SDT_CONTENT, qn("w:customXml"), qn("w:smartTag"), qn("w:ins")})
# Moved-away text, tab *stops* (not characters) and the copy of a text box kept for old readers.
_SKIPPED = frozenset(
    {
        qn("w:moveFrom"),
        qn("w:del"),
        qn("w:pPr"),
        qn("w:rPr"),
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    }
)
_HEADING_STYLE = re.compile(r"heading\s*([1-9])", re.IGNORECASE)
_PARSED_SUFFIXES = (".xml", ".rels")
_MAX_MEMBERS = 10_000
_BOMB_FLOOR_BYTES = 1_000_000  # a small member may compress as well as it likes


def load(data: bytes, *, filename: str, limits: Limits) -> Document:
    _refuse_hostile_zip(data, filename, limits)
    try:
        opened = docx.Document(io.BytesIO(data))
        builder = DocumentBuilder(format="docx", filename=filename, limits=limits)
        _Body(opened, builder).extract()
        return builder.finish(title=opened.core_properties.title or "")
    except (NoriaError, MemoryError):
        raise
    except Exception as error:
        # python-docx raises KeyError, ValueError, AttributeError, lxml's and zlib's errors, as the damage has it.
        raise unreadable(filename, f"the DOCX is damaged ({type(error).__name__}: {str(error)[:200]}).") from error


def _refuse_hostile_zip(data: bytes, filename: str, limits: Limits) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive, filename, limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise unreadable(filename, f"the DOCX is damaged: its zip cannot be read ({error}).") from error
    except RuntimeError as error:
        raise unreadable(filename, "the DOCX is encrypted.", hint="Save it without a password.") from error


def _check_members(archive: zipfile.ZipFile, filename: str, limits: Limits) -> None:
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    # zipfile stops at the declared size, so that declared sizes are what reading can cost.
    if total > limits.max_uncompressed_bytes or len(members) > _MAX_MEMBERS:
        raise unreadable(filename, f"the DOCX unpacks to {total:,} bytes in {len(members):,} parts: refused.")
    for member in members:
        ratio = member.file_size / max(member.compress_size, 1)
        if member.file_size > _BOMB_FLOOR_BYTES and ratio > limits.max_compression_ratio:
            raise unreadable(filename, f"{member.filename!r} unpacks to {ratio:.0f} times its size: refused.")
        if member.flag_bits & 0x1:
            raise unreadable(filename, "the DOCX is encrypted.", hint="Save it without a password.")
        if member.filename.endswith(_PARSED_SUFFIXES):
            with archive.open(member) as part:
                # No producer writes a document type into OOXML; it is only there to define entities.
                if b"<!DOCTYPE" in part.read(65_536).replace(b"\x00", b""):
                    raise unreadable(filename, f"{member.filename!r} defines XML entities: refused.")


class _Body:
    """Walks `w:body`; consecutive list paragraphs become one block."""

    def __init__(self, opened: DocxDocument, builder: DocumentBuilder) -> None:
        self._opened = opened
        self._builder = builder
        self._items: list[str] = []
        self._levels, self._names = _styles(opened)

    def extract(self) -> None:
        for element in _unwrapped(self._opened.element.body, (_P, _TBL)):
            if element.tag == _P:
                self._paragraph(element)
            else:
                self._flush_list()
                self._table(element)
        self._flush_list()

    def _paragraph(self, element: _Element) -> None:
        text = _text(element).strip("\n")
        if not text.strip():
            return
        properties = element.find(qn("w:pPr"))
        style = _value(properties, "w:pStyle")
        level = self._heading_level(properties, style)
        name = self._names.get(style, "")
        if level:
            self._flush_list()
            self._builder.add("heading", " ".join(text.split()), level=level)
        elif (properties is not None and properties.find(qn("w:numPr")) is not None) or "list" in name:
            self._items.append("- " + " ".join(text.split()))
        else:
            self._flush_list()
            self._builder.add("code" if "code" in name or "preformatted" in name else "paragraph", text)

    def _heading_level(self, properties: _Element | None, style: str) -> int:
        outline = _value(properties, "w:outlineLvl")
        if outline.isdigit() and int(outline) < 9:
            return min(int(outline) + 1, 6)
        return self._levels.get(style, 0)

    def _flush_list(self) -> None:
        if self._items:
            self._builder.add("list", "\n".join(self._items))
            self._items.clear()

    def _table(self, table: _Element) -> None:
        lines: list[str] = []
        for row in _unwrapped(table, (_TR,)):
            cells = [_cell_text(cell) for cell in _unwrapped(row, (_TC,))]
            line = join_cells(cells)
            if line:
                lines.append(line)
        if lines:
            self._builder.add("table", "\n".join(lines), header=lines[0] if len(lines) > 1 else "")


def _unwrapped(parent: _Element, wanted: tuple[str, ...]) -> Iterator[_Element]:
    """The wanted children, also those inside content controls and insertions. Iterative: nesting may be hostile."""
    stack = list(reversed(parent))
    while stack:
        element = stack.pop()
        if element.tag in wanted:
            yield element
        elif element.tag in _ROW_OR_CELL_WRAPPERS:
            stack.extend(reversed(element))


def _text(root: _Element) -> str:
    parts: list[str] = []
    stack = list(reversed(root))
    while stack:
        element = stack.pop()
        tag = element.tag
        if tag == _T:
            parts.append(element.text or "")
        elif tag == _TAB:
            parts.append("\t")
        elif tag in (_BR, _CR):
            parts.append("\n")
        elif tag not in _SKIPPED:
            stack.extend(reversed(element))
    return "".join(parts)


def _cell_text(cell: _Element) -> str:
    """A cell's paragraphs, those of nested tables too, as one line."""
    return " ".join(filter(None, (" ".join(_text(paragraph).split()) for paragraph in cell.iter(_P))))


def _value(properties: _Element | None, tag: str) -> str:
    found = properties.find(qn(tag)) if properties is not None else None
    return (found.get(_VAL) or "") if found is not None else ""


def _styles(opened: DocxDocument) -> tuple[dict[str, int], dict[str, str]]:
    """Heading level by style id, and lower-case style name by style id."""
    levels: dict[str, int] = {}
    names: dict[str, str] = {}
    for style in opened.styles.element.iter(qn("w:style")):
        style_id = style.get(qn("w:styleId")) or ""
        name = _value(style, "w:name").lower()
        names[style_id] = name
        outline = _value(style.find(qn("w:pPr")), "w:outlineLvl")
        named = _HEADING_STYLE.fullmatch(name)
        if name == "title":
            levels[style_id] = 1
        elif named:
            levels[style_id] = min(int(named.group(1)), 6)
        elif outline.isdigit() and int(outline) < 9 and name.startswith(("heading", "标题", "標題")):
            levels[style_id] = min(int(outline) + 1, 6)
    return levels, names
