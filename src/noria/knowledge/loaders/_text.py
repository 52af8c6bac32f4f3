"""Plain text: the file is the canonical text; blank lines separate paragraphs."""

from __future__ import annotations

import re

from noria.knowledge._document import Document, DocumentBuilder, Limits
from noria.knowledge._encoding import decode_text

__all__ = ["load"]

_PARAGRAPH = re.compile(r"\S[^\n]*(?:\n[^\S\n]*\S[^\n]*)*")


def load(data: bytes, *, filename: str, limits: Limits) -> Document:
    text = decode_text(data, filename=filename)
    builder = DocumentBuilder(format="txt", filename=filename, limits=limits, source=text)
    for match in _PARAGRAPH.finditer(text):
        builder.mark("paragraph", match.start(), match.end())
    return builder.finish()
