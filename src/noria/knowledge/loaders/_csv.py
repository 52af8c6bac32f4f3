"""CSV and TSV: one block per row, cells joined by ` | `, the header row kept with each of them."""

from __future__ import annotations

import csv
import io
from itertools import islice

from noria.knowledge._document import Document, DocumentBuilder, Limits, join_cells, unreadable
from noria.knowledge._encoding import decode_text

__all__ = ["load"]

_DELIMITERS = (",", "\t", ";", "|")
_SAMPLE_ROWS = 50


def load(data: bytes, *, filename: str, limits: Limits) -> Document:
    text = decode_text(data, filename=filename)
    csv.field_size_limit(max(len(text), csv.field_size_limit()))  # of the whole process: never lowered
    builder = DocumentBuilder(format="csv", filename=filename, limits=limits)
    delimiter = _delimiter(text)
    sample = _sample(text, delimiter)
    has_header = _has_header(sample)
    header = join_cells(sample[0]) if has_header else ""
    try:
        for number, row in enumerate(_rows(text, delimiter)):
            builder.add("row", join_cells(row), header="" if number == 0 and has_header else header, gap="\n")
    except csv.Error as error:
        raise unreadable(filename, f"the CSV cannot be parsed: {error}.") from error
    return builder.finish()


def _rows(text: str, delimiter: str) -> csv.Reader:  # pyright: ignore[reportAttributeAccessIssue, reportUnknownParameterType]
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _sample(text: str, delimiter: str) -> list[list[str]]:
    try:
        return [row for row in islice(_rows(text, delimiter), _SAMPLE_ROWS) if row]
    except csv.Error:
        return []


def _delimiter(text: str) -> str:
    """The delimiter that splits the first rows most evenly; csv.Sniffer guesses letters on short files."""

    def evenness(delimiter: str) -> tuple[float, int]:
        widths = [len(row) for row in _sample(text[:100_000], delimiter)]
        if not widths or max(widths) < 2:
            return (0.0, 0)
        usual = max(set(widths), key=widths.count)
        return (widths.count(usual) / len(widths) if usual > 1 else 0.0, usual)

    return max(_DELIMITERS, key=evenness)


def _has_header(sample: list[list[str]]) -> bool:
    """A first row of distinct, filled, non-numeric names above at least one other row."""
    if len(sample) < 2:
        return False
    names = [cell.strip() for cell in sample[0]]
    return all(names) and len(set(names)) == len(names) and not any(_is_number(name) for name in names)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return False
    return True
