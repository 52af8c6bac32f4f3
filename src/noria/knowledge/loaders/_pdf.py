"""PDF: text page by page through PDFium, put back into paragraphs by the geometry of its lines.

Headings are told by font size, and only where that is reliable: a few short lines clearly larger than the body.
Running heads, page numbers and the dotted lines of tables of contents are dropped, words cut at line ends are joined.
Nothing is recognised from images.
Source: PDFium's fpdf_text.h.
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from noria.errors import PayloadTooLarge
from noria.knowledge._document import Document, DocumentBuilder, Limits, unreadable

__all__ = ["load"]

_HYPHEN = "\ufffe"  # what pypdfium2 gives for a hyphen that PDFium found at a line's end; U+0002 in PDFium itself
_CUT_INSIDE = re.compile("[\ufffe\x02](?=[a-zà-ÿ])")
_CJK = re.compile(r"[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef\u3000-\u303f]")
_SENTENCE_END = re.compile(r"[.!?:;。！？：；…][\"'”’）)\]]*$")
_LIST_ITEM = re.compile(r"^\s*(?:[•●▪‣◦–—*-]|\(?\d{1,3}[.)、]|[a-z][.)])\s+\S")
_DOT_LEADER = re.compile(r"(?:[.·…]\s?){5,}\s*[\divxlc]*$")
_DIGITS = re.compile(r"\d+")

_HEADING_RATIO = 1.15  # a heading is set at least this much larger than the body
_HEADING_MAX_CHARS = 150
_HEADING_MAX_SHARE = 0.25  # more of the text than this cannot be headings: sizes mean something else here
_PARAGRAPH_GAP = 1.35  # line distance, in usual line distances, from which a new paragraph begins
_REPEATED_SHARE = 0.5  # a first or last line on this share of the pages is a running head
_REPEATED_MIN_PAGES = 5
_CONTENTS_MIN_LINES = 3  # fewer dotted lines on a page may be a form's


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    size: float  # font size of the first glyph, 0 when unknown
    baseline: float  # distance from the page's bottom, in points
    right: float  # its right edge, in points


@dataclass(frozen=True, slots=True)
class _Style:
    """What the document as a whole looks like."""

    levels: dict[float, int]  # heading level by rounded font size
    repeated: frozenset[str]


def load(data: bytes, *, filename: str, limits: Limits) -> Document:
    pages, title = _read(data, filename, limits)
    if not any(line.text.strip() for page in pages for line in page):
        raise unreadable(
            filename,
            f"the PDF has {len(pages)} pages but no text: it is scanned or drawn.",
            hint="Noria does no OCR yet; run the file through an OCR program that adds a text layer.",
        )
    style = _Style(_heading_levels(pages), _running_heads(pages))
    builder = DocumentBuilder(format="pdf", filename=filename, limits=limits)
    for number, page in enumerate(pages, start=1):
        start = builder.length
        _add_page(builder, _without_furniture(page, style), number, style)
        if builder.length > start:
            builder.end_page(number, start + 2 if start else 0)
    return builder.finish(title=title)


def _read(data: bytes, filename: str, limits: Limits) -> tuple[list[list[_Line]], str]:
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if "assword" in str(error):
            raise unreadable(filename, "the PDF is protected by a password.", hint="Save it without one.") from error
        raise unreadable(filename, f"the PDF is damaged ({error}).") from error
    try:
        num_pages = len(document)
        if num_pages > limits.max_pages:
            raise PayloadTooLarge(
                f"{filename}: {num_pages:,} pages are more than the limit of {limits.max_pages:,}.",
                code="file_too_large",
                hint="Split the file.",
            )
        pages: list[list[_Line]] = []
        damaged = num_chars = 0
        for index in range(num_pages):
            try:
                page = list(_lines(document, index))
            except pdfium.PdfiumError:
                damaged += 1
                page = []
            num_chars += sum(len(line.text) for line in page)
            if num_chars > limits.max_text_chars:
                raise PayloadTooLarge(f"{filename}: too much text.", code="file_too_large", hint="Split the file.")
            pages.append(page)
        if damaged == num_pages:
            raise unreadable(filename, "the PDF is damaged: none of its pages can be read.")
        return pages, document.get_metadata_value("Title")
    finally:
        document.close()


def _lines(document: pdfium.PdfDocument, index: int) -> Iterator[_Line]:
    page = document[index]
    try:
        textpage = page.get_textpage()
        try:
            yield from _lines_of(textpage)
        finally:
            textpage.close()
    finally:
        page.close()


def _lines_of(textpage: pdfium.PdfTextPage) -> Iterator[_Line]:
    num_chars = textpage.count_chars()
    if num_chars <= 0:
        return
    text = textpage.get_text_range(errors="replace")
    # Characters outside the BMP count twice in PDFium; without one-to-one indices there is no geometry.
    aligned = len(text) == num_chars
    start = 0
    for line in text.split("\n"):
        stripped = line.rstrip("\r ")
        if stripped.strip():
            lead = len(stripped) - len(stripped.lstrip())
            yield (
                _measure(textpage, stripped, start + lead, start + len(stripped) - 1)
                if aligned
                else _Line(_without_cuts(stripped.strip()), 0.0, 0.0, 0.0)
            )
        start += len(line) + 1


def _measure(textpage: pdfium.PdfTextPage, text: str, first: int, last: int) -> _Line:
    # A hyphen that PDFium made up has no box of its own.
    if text.endswith((_HYPHEN, "\x02")) and last > first:
        last -= 1
    size = float(raw.FPDFText_GetFontSize(textpage, first))
    return _Line(_without_cuts(text.strip()), size, _baseline(textpage, first), _right_edge(textpage, last))


def _baseline(textpage: pdfium.PdfTextPage, index: int) -> float:
    x, y = ctypes.c_double(), ctypes.c_double()
    return y.value if raw.FPDFText_GetCharOrigin(textpage, index, x, y) else 0.0


def _right_edge(textpage: pdfium.PdfTextPage, index: int) -> float:
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    return right.value if raw.FPDFText_GetCharBox(textpage, index, left, right, bottom, top) else 0.0


def _without_cuts(text: str) -> str:
    """PDFium itself puts some cut words together, and leaves its mark where the hyphen was."""
    return _CUT_INSIDE.sub("", text)


def _heading_levels(pages: list[list[_Line]]) -> dict[float, int]:
    """Heading level by font size; empty when sizes do not tell headings reliably."""
    chars: Counter[float] = Counter()
    for page in pages:
        for line in page:
            chars[round(line.size, 1)] += len(line.text)
    if not chars:
        return {}
    body = chars.most_common(1)[0][0]
    if body <= 1.0:  # text scaled by its matrix: the nominal sizes are all 1
        return {}
    large = [line for page in pages for line in page if line.size >= body * _HEADING_RATIO]
    if not large or sum(len(line.text) for line in large) > _HEADING_MAX_SHARE * chars.total():
        return {}
    sizes = sorted({round(line.size, 1) for line in large if len(line.text) <= _HEADING_MAX_CHARS}, reverse=True)
    return {size: min(level, 6) for level, size in enumerate(sizes, start=1)}


def _running_heads(pages: list[list[_Line]]) -> frozenset[str]:
    filled = [page for page in pages if page]
    if len(filled) < _REPEATED_MIN_PAGES:
        return frozenset()
    edges: Counter[str] = Counter()
    for page in filled:
        edges.update({_edge_key(page[0]), _edge_key(page[-1])})
    return frozenset(key for key, count in edges.items() if count > _REPEATED_SHARE * len(filled))


def _edge_key(line: _Line) -> str:
    return _DIGITS.sub("#", line.text)


def _without_furniture(page: list[_Line], style: _Style) -> list[_Line]:
    if page and _edge_key(page[0]) in style.repeated:
        page = page[1:]
    if page and _edge_key(page[-1]) in style.repeated:
        page = page[:-1]
    dotted = [line for line in page if _DOT_LEADER.search(line.text)]
    return [line for line in page if line not in dotted] if len(dotted) >= _CONTENTS_MIN_LINES else page


def _add_page(builder: DocumentBuilder, lines: list[_Line], number: int, style: _Style) -> None:
    usual_gap = _usual_gap(lines)
    margin = max((line.right for line in lines), default=0.0)
    group: list[_Line] = []
    for line in lines:
        if group and _begins_block(group[-1], line, usual_gap, margin, style):
            _add_group(builder, group, number, style)
            group = []
        group.append(line)
    if group:
        _add_group(builder, group, number, style)


def _usual_gap(lines: list[_Line]) -> float:
    gaps = sorted(above.baseline - below.baseline for above, below in pairwise(lines) if above.baseline - below.baseline > 1.0)
    return gaps[len(gaps) // 3] if gaps else 0.0


def _begins_block(above: _Line, line: _Line, usual_gap: float, margin: float, style: _Style) -> bool:
    if _level(above, style) != _level(line, style) or _LIST_ITEM.match(line.text):
        return True
    gap = above.baseline - line.baseline
    if usual_gap and (gap > usual_gap * _PARAGRAPH_GAP or gap < -usual_gap):  # going up is a new column
        return True
    # A line that stops well short of the margin after a full stop ends its paragraph.
    return bool(margin and above.right < 0.85 * margin and _SENTENCE_END.search(above.text))


def _level(line: _Line, style: _Style) -> int:
    return style.levels.get(round(line.size, 1), 0) if len(line.text) <= _HEADING_MAX_CHARS else 0


def _add_group(builder: DocumentBuilder, group: list[_Line], number: int, style: _Style) -> None:
    text = _join([line.text for line in group])
    level = _level(group[0], style)
    if level and len(text) <= _HEADING_MAX_CHARS:
        builder.add("heading", text, level=level, page=number)
    elif _LIST_ITEM.match(text):
        builder.add("list", text, page=number)
    else:
        builder.add("paragraph", text, page=number)


def _join(lines: list[str]) -> str:
    """Lines to running text: no space between Chinese characters, cut words put together."""
    joined = ""
    for line in lines:
        if not joined:
            joined = line
        elif joined.endswith((_HYPHEN, "\x02")) or _is_cut_word(joined, line):
            joined = joined[:-1] + line
        elif _CJK.match(joined[-1]) and _CJK.match(line[0]):
            joined += line
        else:
            joined += " " + line
    return joined.replace(_HYPHEN, "-").replace("\x02", "-")


def _is_cut_word(above: str, below: str) -> bool:
    return above.endswith(("-", "\u00ad")) and above[-2:-1].isalpha() and below[:1].islower()
