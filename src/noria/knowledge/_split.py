"""Documents to passages: along headings, blocks and sentences, never longer than asked, each an exact span.

A passage's `text` is `document.text[start:end]` to the character; what it needs to be understood alone (the headings
above it, the header row of its table) stands in `context`, which is embedded with it and never shown as its text.

Where a section is longer than a passage, the cut is the candidate whose following text has the smallest hash
(content-defined chunking: https://www.usenix.org/conference/atc16/technical-sessions/presentation/xia), so that an edit
moves the cuts near it and no others, and only the passages that changed are embedded again.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from noria.errors import InvalidRequest
from noria.knowledge._document import Block, Document
from noria.knowledge._sentences import sentence_spans

__all__ = ["Chunking", "CountTokens", "Passage", "Place", "split"]

CountTokens = Callable[[str], int]

_MAX_CONTEXT_CHARS = 240  # about 60–80 tokens: with 400 of text it still fits a 512-token embedder
_CHARS_PER_TOKEN_BOUND = 16  # a longer piece than this per token is cut without counting it whole; white space has no tokens
_MAX_PLACES_CHARS = (1000, 2)  # of headings in one passage's places: so many, and so many more for each of the text's own
_SOFT_BREAK = re.compile(r"[\s,，、;:：)\]}>。]")


@dataclass(frozen=True, slots=True)
class Chunking:
    """How long passages are, in the embedder's tokens. The default suits embedders that read 512 tokens."""

    max_tokens: int = 400
    overlap_tokens: int = 0

    @classmethod
    def from_openai(cls, strategy: Mapping[str, Any] | None) -> Chunking:
        """OpenAI's `chunking_strategy`, validated strictly. None and `auto` give the default.

        Source: https://platform.openai.com/docs/api-reference/vector-stores-files/createFile
        """
        if strategy is None or dict(strategy) == {"type": "auto"}:
            return cls()
        if strategy.get("type") != "static":
            raise _invalid("chunking_strategy.type", f"is {strategy.get('type')!r}", "Use `auto` or `static`.")
        static = strategy.get("static")
        if set(strategy) != {"type", "static"} or not isinstance(static, Mapping):
            raise _invalid("chunking_strategy.static", "must be the only other field, an object", "See the API page.")
        unknown = set(static) - {"max_chunk_size_tokens", "chunk_overlap_tokens"}
        if unknown:
            raise _invalid(f"chunking_strategy.static.{min(unknown)}", "is not a known field", "Leave it out.")
        max_tokens = static.get("max_chunk_size_tokens", 800)
        overlap = static.get("chunk_overlap_tokens", max_tokens // 2 if isinstance(max_tokens, int) else 0)
        if not _is_int(max_tokens) or not 100 <= max_tokens <= 4096:
            raise _invalid("chunking_strategy.static.max_chunk_size_tokens", f"is {max_tokens!r}", "Use 100 to 4096.")
        if not _is_int(overlap) or not 0 <= overlap <= max_tokens // 2:
            raise _invalid(
                "chunking_strategy.static.chunk_overlap_tokens",
                f"is {overlap!r}",
                f"Use 0 to {max_tokens // 2}, half of the chunk.",
            )
        return cls(max_tokens, overlap)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part of a passage stands: from character `offset` of the passage on, up to the next place."""

    offset: int
    page: int | None
    heading_path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Passage:
    """One piece of a document that is embedded, searched and cited. `page` and `last_page` are None off paper.

    `places` follow each other; empty where all of the passage is on one page and under one heading.
    """

    start: int
    end: int
    text: str
    context: str
    heading_path: tuple[str, ...]
    page: int | None
    last_page: int | None
    num_tokens: int
    places: tuple[Place, ...] = ()

    @property
    def text_to_embed(self) -> str:
        return f"{self.context}\n{self.text}" if self.context else self.text

    @property
    def hash(self) -> str:
        """The same hash means the same embedding."""
        return hashlib.sha256(f"{self.context}\0{self.text}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Unit:
    """The smallest piece that is never cut: a sentence, a line, or a part of one that is too long."""

    start: int
    end: int
    num_tokens: int
    block: Block
    begins_block: bool

    @property
    def is_heading(self) -> bool:
        return self.block.kind == "heading"

    @property
    def begins_section(self) -> bool:
        return self.is_heading and self.begins_block


def split(document: Document, chunking: Chunking, count_tokens: CountTokens) -> list[Passage]:
    """The passages of `document`, in order. Together they cover everything in it that is not blank."""
    units = _units(document, chunking.max_tokens, count_tokens)
    return _Packer(document, units, chunking, count_tokens).pack()


class _Packer:
    def __init__(self, document: Document, units: Sequence[_Unit], chunking: Chunking, count_tokens: CountTokens) -> None:
        self._document = document
        self._units = units
        self._chunking = chunking
        self._count = count_tokens
        # Shorter sections than this are put together with the next one.
        self._min_tokens = chunking.max_tokens // 4
        self._max_chars = chunking.max_tokens * _CHARS_PER_TOKEN_BOUND

    def pack(self) -> list[Passage]:
        passages: list[Passage] = []
        first, covered = 0, 0
        while covered < len(self._units):
            end, at_section = self._end_of(first)
            # `first` may lie in what is already covered (overlap); each passage must reach beyond that.
            end = max(end, covered + 1)
            while self._is_too_long(first, end) and end - first > 1:
                if end > covered + 1:
                    end -= 1
                else:
                    first += 1
            passages.append(self._passage(first, end, self._tokens(first, end)))
            covered = end
            first = covered if at_section else self._overlap_from(first, covered)
        return passages

    def _end_of(self, first: int) -> tuple[int, bool]:
        """Where the passage that begins with unit `first` ends, and whether that is the end of a section."""
        units, total = self._units, 0
        sizes: list[int] = []  # tokens before each candidate end
        for index in range(first, len(units)):
            unit = units[index]
            if unit.begins_section and total >= self._min_tokens:
                return index, True
            too_long = total + unit.num_tokens > self._chunking.max_tokens or self._num_chars(first, index + 1) > self._max_chars
            if too_long and index > first:
                return self._best_cut(first, sizes), False
            total += unit.num_tokens
            sizes.append(total)
        return len(units), True

    def _best_cut(self, first: int, sizes: Sequence[int]) -> int:
        """The cut before the unit with the smallest hash: before a block if one lies in the second half."""
        limit = self._chunking.max_tokens
        candidates = [
            first + offset
            for offset, size in enumerate(sizes, start=1)
            if size >= limit // 2 and not self._units[first + offset - 1].is_heading
        ]
        before_blocks = [index for index in candidates if self._units[index].begins_block]
        late = [index for index in candidates if sizes[index - first - 1] >= limit * 3 // 4]
        best = before_blocks or late or candidates
        return min(best, key=self._fingerprint) if best else first + len(sizes)

    def _fingerprint(self, index: int) -> int:
        unit = self._units[index]
        return zlib.crc32(self._document.text[unit.start : unit.end].encode())

    def _is_too_long(self, first: int, end: int) -> bool:
        return self._num_chars(first, end) > self._max_chars or self._tokens(first, end) > self._chunking.max_tokens

    def _num_chars(self, first: int, end: int) -> int:
        return self._units[end - 1].end - self._units[first].start

    def _tokens(self, first: int, end: int) -> int:
        return self._count(self._document.text[self._units[first].start : self._units[end - 1].end])

    def _overlap_from(self, first: int, end: int) -> int:
        """The unit from which the next passage repeats the end of this one."""
        total, index = 0, end
        while index - 1 > first and total + self._units[index - 1].num_tokens <= self._chunking.overlap_tokens:
            index -= 1
            total += self._units[index].num_tokens
        return index

    def _passage(self, first: int, end: int, num_tokens: int) -> Passage:
        units = self._units[first:end]
        opening = units[0].block
        # A heading opens the passage: what follows is under it, so that is where the passage lies.
        content = next((unit.block for unit in units if not unit.is_heading), opening)
        start, stop = units[0].start, units[-1].end
        pages = [unit.block.page for unit in units if unit.block.page is not None]
        return Passage(
            start=start,
            end=stop,
            text=self._document.text[start:stop],
            context=_context(opening, includes_header=units[0].begins_block and opening.kind == "table"),
            heading_path=content.heading_path,
            page=min(pages, default=None),
            last_page=max(pages, default=None),
            num_tokens=num_tokens,
            places=_places(units, start),
        )


def _places(units: Sequence[_Unit], start: int) -> tuple[Place, ...]:
    """A heading stands with what follows it: who cites it means that.

    Where there is no end of headings, with hardly a word below each, what comes last is under what those have in common:
    a passage's places are kept with it, and would be many times its text.
    """
    paths: list[tuple[str, ...]] = []
    path = next((unit.block.heading_path for unit in reversed(units) if not unit.is_heading), units[0].block.heading_path)
    for unit in reversed(units):
        path = path if unit.is_heading else unit.block.heading_path
        paths.append(path)
    paths.reverse()
    places: list[Place] = []
    size = -_MAX_PLACES_CHARS[0] - _MAX_PLACES_CHARS[1] * (units[-1].end - start)
    for index, (unit, above) in enumerate(zip(units, paths, strict=True)):
        if not places or (places[-1].page, places[-1].heading_path) != (unit.block.page, above):
            size += sum(map(len, above)) + 20
            if places and size > 0:
                places.append(Place(unit.start - start, unit.block.page, _common(paths[index:])))
                break
            places.append(Place(unit.start - start, unit.block.page, above))
    return tuple(places) if len(places) > 1 else ()


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The headings above all of them: what the first in order shares with the last."""
    first, last = min(paths), max(paths)
    return tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def _context(opening: Block, *, includes_header: bool) -> str:
    path = " > ".join(opening.heading_path)
    lines = [path[-_MAX_CONTEXT_CHARS:], "" if includes_header else opening.header[:_MAX_CONTEXT_CHARS]]
    return "\n".join(line for line in lines if line)


def _units(document: Document, max_tokens: int, count_tokens: CountTokens) -> list[_Unit]:
    units: list[_Unit] = []
    position = 0
    # What lies between blocks (rules, link definitions, front matter) is covered too, as paragraphs.
    for block in [*document.blocks, Block("paragraph", len(document.text), len(document.text))]:
        if block.start < position:
            continue
        if document.text[position : block.start].strip():
            gap = Block("paragraph", position, block.start, page=block.page, heading_path=_path_of(units))
            units.extend(_units_of(document.text, gap, max_tokens, count_tokens))
        units.extend(_units_of(document.text, block, max_tokens, count_tokens))
        position = block.end
    return units


def _path_of(units: Sequence[_Unit]) -> tuple[str, ...]:
    return units[-1].block.heading_path if units else ()


def _units_of(text: str, block: Block, max_tokens: int, count_tokens: CountTokens) -> list[_Unit]:
    if block.kind == "paragraph":
        spans = sentence_spans(text, block.start, block.end)
    elif block.kind == "heading":
        spans = [(block.start, block.end)]
    else:
        spans = _lines(text, block.start, block.end)
    units: list[_Unit] = []
    for start, end in spans:
        for piece_start, piece_end, num_tokens in _pieces(text, start, end, max_tokens, count_tokens):
            units.append(_Unit(piece_start, piece_end, num_tokens, block, begins_block=not units))
    return units


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The lines that are not blank, without white space at their ends; indentation means something in code and lists.

    By hand: an expression that looks for a line with something on it takes quadratic time on a long blank one.
    """
    while start < end:
        found = text.find("\n", start, end)
        stop = found if found >= 0 else end
        if line := text[start:stop].rstrip():
            yield start, start + len(line)
        start = stop + 1


def _pieces(text: str, start: int, end: int, max_tokens: int, count_tokens: CountTokens) -> list[tuple[int, int, int]]:
    """`[start, end)` in pieces of at most `max_tokens`, cut at white space or punctuation where there is some."""
    pieces: list[tuple[int, int, int]] = []
    while start < end:
        if end - start <= max_tokens * _CHARS_PER_TOKEN_BOUND:
            num_tokens = count_tokens(text[start:end])
            if num_tokens <= max_tokens:
                pieces.append((start, end, num_tokens))
                break
        stop = _longest_prefix(text, start, end, max_tokens, count_tokens)
        breaks = [match.end() for match in _SOFT_BREAK.finditer(text, start + (stop - start) // 2, stop)]
        soft = breaks[-1] if breaks else stop
        # White space at the cut belongs to neither side, and a piece must not lose or gain tokens by being trimmed.
        piece_end = start + len(text[start:soft].rstrip())
        num_tokens = count_tokens(text[start:piece_end])
        if num_tokens > max_tokens:
            soft = piece_end = stop
            num_tokens = count_tokens(text[start:stop])
        if text[start:piece_end].strip():  # else a long indentation alone
            pieces.append((start, piece_end, num_tokens))
        start = soft
        while start < end and text[start].isspace():
            start += 1
    return pieces


def _longest_prefix(text: str, start: int, end: int, max_tokens: int, count_tokens: CountTokens) -> int:
    """The end of a prefix that holds at most `max_tokens` (one character at least), found by bisection."""
    low, high = start + 1, min(end, start + max_tokens * _CHARS_PER_TOKEN_BOUND)
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(text[start:middle]) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    return low


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _invalid(param: str, what: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"`{param}` {what}.", param=param, hint=hint)
