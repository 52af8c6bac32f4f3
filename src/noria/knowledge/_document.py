"""What a file becomes: one canonical text, and blocks that point into it.

Everything downstream (passages, citations, highlights) is a `[start, end)` span of `Document.text`, in Python
characters. So the text is stored as it is here and never normalised again. This module knows no file format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from noria.errors import InvalidRequest, PayloadTooLarge

__all__ = [
    "Block",
    "BlockKind",
    "Document",
    "DocumentBuilder",
    "Limits",
    "PageSpan",
    "clean_text",
    "join_cells",
    "unreadable",
]

BlockKind = Literal["heading", "paragraph", "table", "code", "list", "row"]

# Control characters carry no meaning in extracted text and break SQL text columns (NUL), JSON (lone surrogates) and
# terminals; U+FFFE and U+FFFF are what PDFium emits for hyphens and unmapped glyphs once the loader has seen them.
_UNWANTED = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost. Times are wall-clock seconds; a file gets `base_time_s + time_per_mb_s * its MB`.

    `max_memory_bytes` is what the extractor process may use above what it uses when idle.
    """

    max_bytes: int = 512 * 1024 * 1024
    max_text_chars: int = 50_000_000
    max_blocks: int = 1_000_000
    max_pages: int = 10_000
    max_uncompressed_bytes: int = 400 * 1024 * 1024
    max_compression_ratio: int = 200
    max_memory_bytes: int = 1024 * 1024 * 1024
    base_time_s: float = 30.0
    time_per_mb_s: float = 2.0

    @property
    def max_wire_bytes(self) -> int:
        """What a document within these limits takes at most to cross a process border.

        Its text, its headings and its headers, each four bytes a character at most; marks and numbers of its blocks.
        """
        return 12 * self.max_text_chars + 160 * self.max_blocks + 40 * self.max_pages + 2**20

    def time_s(self, num_bytes: int) -> float:
        return self.base_time_s + self.time_per_mb_s * num_bytes / 1e6


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of structure: `document.text[start:end]`.

    `level` is 1–6 for headings and 0 otherwise. `heading_path` holds the titles of the headings above it, outermost
    first, itself excluded. `header` is the header row of a table (or of the table that a row belongs to), so that
    rows cut away from it can still be read.
    """

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    page: int | None = None
    heading_path: tuple[str, ...] = ()
    header: str = ""


@dataclass(frozen=True, slots=True)
class PageSpan:
    """Where page `number` (from 1) lies in the text."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """The canonical text of one file, with its blocks in reading order (they never overlap)."""

    text: str
    blocks: tuple[Block, ...]
    format: str
    title: str = ""
    pages: tuple[PageSpan, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """A JSON-ready form for crossing a process border. Headings are sent once, each with the place of the one above it,
        and so are headers: a path written out for each block would be many times the document.
        """
        headings: dict[tuple[int, str], int] = {}
        headers: dict[str, int] = {}
        # Blocks under one heading share its path, which is then found without being compared.
        path, above = (), -1
        rows: list[tuple[Any, ...]] = []
        for block in self.blocks:
            if block.heading_path is not path:
                path, above = block.heading_path, -1
                for title in path:
                    above = headings.setdefault((above, title), len(headings))
            header = headers.setdefault(block.header, len(headers))
            rows.append((block.kind, block.start, block.end, block.level, block.page, above, header))
        return {
            "text": self.text,
            "format": self.format,
            "title": self.title,
            "pages": [(page.number, page.start, page.end) for page in self.pages],
            "headings": list(headings),
            "headers": list(headers),
            "blocks": rows,
        }

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Document:
        paths: list[tuple[str, ...]] = []
        for above, title in wire["headings"]:
            paths.append((*paths[above], title) if above >= 0 else (title,))
        headers: list[str] = wire["headers"]
        blocks = tuple(
            Block(kind, start, end, level, page, paths[heading] if heading >= 0 else (), headers[header])
            for kind, start, end, level, page, heading, header in wire["blocks"]
        )
        pages = tuple(PageSpan(*page) for page in wire["pages"])
        return cls(text=wire["text"], blocks=blocks, format=wire["format"], title=wire["title"], pages=pages)


class DocumentBuilder:
    """Builds a Document block by block, keeping the heading path and the limits.

    A loader either appends text (`add`: PDF, DOCX, HTML, CSV) or marks spans of a source that is itself the canonical
    text (`DocumentBuilder(source=…)` and `mark`: Markdown, plain text).
    """

    def __init__(self, *, format: str, filename: str, limits: Limits, source: str | None = None) -> None:
        self._format = format
        self._filename = filename
        self._limits = limits
        self._parts: list[str] = []
        self._length = 0
        self._source = source
        self._blocks: list[Block] = []
        self._headings: list[tuple[int, str]] = []
        self._path: tuple[str, ...] = ()
        self._pages: list[PageSpan] = []
        self._first_heading = ""
        if source is not None:
            self._refuse_if_longer(len(source))

    def add(
        self, kind: BlockKind, text: str, *, level: int = 0, page: int | None = None, header: str = "", gap: str = "\n\n"
    ) -> None:
        """Append a block; blank ones are skipped. `gap` separates it from the one before."""
        text = clean_text(text).strip("\n") if kind == "code" else clean_text(text).strip()
        if not text.strip():
            return
        if self._length:
            self._parts.append(gap)
            self._length += len(gap)
        start = self._length
        self._parts.append(text)
        self._length += len(text)
        self._refuse_if_longer(self._length)
        title = _SPACES.sub(" ", text) if kind == "heading" else ""
        self._append(Block(kind, start, self._length, level, page, (), clean_text(header)), title)

    def mark(self, kind: BlockKind, start: int, end: int, *, level: int = 0, title: str = "", header: str = "") -> None:
        """Mark `[start, end)` of the source; `title` is a heading's text without its markup."""
        assert self._source is not None, "mark() needs a source"
        self._append(Block(kind, start, end, level, None, (), header), title)

    def end_page(self, number: int, start: int) -> None:
        """Record that page `number` took the text from `start` to here."""
        self._pages.append(PageSpan(number, start, self._length))

    @property
    def length(self) -> int:
        return self._length

    def finish(self, *, title: str = "") -> Document:
        text = self._source if self._source is not None else "".join(self._parts)
        title = _SPACES.sub(" ", clean_text(title)).strip() or self._first_heading
        return Document(text, tuple(self._blocks), self._format, title[:500], tuple(self._pages))

    def _append(self, block: Block, title: str) -> None:
        if len(self._blocks) >= self._limits.max_blocks:
            raise PayloadTooLarge(
                f"{self._filename}: more than {self._limits.max_blocks:,} blocks of text.",
                code="file_too_large",
                hint="Split the file.",
            )
        if block.kind == "heading":
            while self._headings and self._headings[-1][0] >= block.level:
                self._headings.pop()
            self._path = tuple(text for _, text in self._headings)
        self._blocks.append(Block(block.kind, block.start, block.end, block.level, block.page, self._path, block.header))
        if block.kind == "heading":
            # A runaway heading (a whole page in one style) must not be repeated in front of each passage below it.
            self._headings.append((block.level, title[:200]))
            self._path = (*self._path, title[:200])
            self._first_heading = self._first_heading or title

    def _refuse_if_longer(self, num_chars: int) -> None:
        if num_chars > self._limits.max_text_chars:
            raise PayloadTooLarge(
                f"{self._filename}: more than {self._limits.max_text_chars:,} characters of text.",
                code="file_too_large",
                hint="Split the file.",
            )


def clean_text(text: str) -> str:
    """Line ends as `\\n`, no control characters, no lone surrogates."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _UNWANTED.sub("", text.replace("\x0c", "\n").replace("\u2028", "\n").replace("\u2029", "\n"))
    return _SURROGATES.sub("\ufffd", text)


def join_cells(cells: list[str]) -> str:
    """One table row as one line; empty trailing cells are dropped."""
    return " | ".join(_SPACES.sub(" ", clean_text(cell)).strip() for cell in cells).rstrip(" |")


def unreadable(filename: str, why: str, *, hint: str | None = None) -> InvalidRequest:
    """The error of every file that cannot be read: it names the file and what is wrong with it."""
    return InvalidRequest(f"{filename}: {why}", param="file", code="unreadable_file", hint=hint)
