"""Loaders: one file per format, chosen by content first and by extension second.

A loader is a module (or any object) with `load(data, *, filename, limits) -> Document`. A third party adds a format
with an entry point in the group `noria.loaders` whose name is the extension: `epub = "my_package.epub"`; it also wins
over a built-in one of the same name. Nothing is imported until a file of that format arrives, and loaders run only
inside the extractor's own process.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from pathlib import PurePath
from typing import Protocol, cast

from noria.errors import PayloadTooLarge
from noria.knowledge._document import Document, DocumentBuilder, Limits, unreadable

__all__ = [
    "Document",
    "DocumentBuilder",
    "Limits",
    "Loader",
    "detect_format",
    "load_document",
    "supported_extensions",
    "unreadable",
]


class Loader(Protocol):
    def load(self, data: bytes, *, filename: str, limits: Limits) -> Document:
        """The document in `data`. Raises InvalidRequest with the code `unreadable_file` when it cannot be read."""
        ...


_BUILT_IN = {
    "pdf": "noria.knowledge.loaders._pdf",
    "docx": "noria.knowledge.loaders._docx",
    "html": "noria.knowledge.loaders._html",
    "md": "noria.knowledge.loaders._markdown",
    "csv": "noria.knowledge.loaders._csv",
    "txt": "noria.knowledge.loaders._text",
}
_SAME_AS = {
    "htm": "html", "xhtml": "html", "shtml": "html",
    "markdown": "md", "mdown": "md", "mkd": "md", "mdx": "md",
    "tsv": "csv",
    "text": "txt", "log": "txt", "rst": "txt",
}  # fmt: skip
# Formats that have a container of their own and no loader: reading them as text would index noise.
_NOT_BUILT = {
    "doc": "the old binary Word format", "ppt": "the old binary PowerPoint format", "xls": "the old binary Excel format",
    "pptx": "PowerPoint", "xlsx": "Excel", "epub": "EPUB", "odt": "OpenDocument", "rtf": "RTF", "eml": "e-mail",
}  # fmt: skip
_OLE2 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def supported_extensions() -> tuple[str, ...]:
    """Every extension that some loader takes, without the dot, sorted."""
    return tuple(sorted({*_BUILT_IN, *_SAME_AS, *_third_party()}))


def detect_format(data: bytes, *, filename: str) -> str:
    """The name of the loader for this file. Raises InvalidRequest (`unreadable_file`) when there is none."""
    extension = PurePath(filename).suffix.lower().lstrip(".")
    if extension in _third_party():
        return extension
    head = data[:2048]
    stripped = head.lstrip(b"\xef\xbb\xbf \t\r\n\x0c")
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _format_of_zip(data, filename, extension)
    if head.startswith(_OLE2):
        raise _no_loader(filename, extension if extension in ("doc", "ppt", "xls") else "doc")
    if stripped[:5].lower() == b"{\\rtf":
        raise _no_loader(filename, "rtf")
    named = _SAME_AS.get(extension, extension)
    if named in ("pdf", "docx"):
        raise unreadable(filename, f"the name says {named.upper()} but the content is not.")
    if named in ("html", "md", "csv", "txt"):
        return named
    if extension in _NOT_BUILT:
        raise _no_loader(filename, extension)
    if stripped[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    return "txt"


def load_document(data: bytes, *, filename: str, limits: Limits) -> Document:
    """Read a file in this process. Only for files one trusts: a hostile one can crash it (see ExtractorPool)."""
    if len(data) > limits.max_bytes:
        raise PayloadTooLarge(
            f"{filename}: {len(data):,} bytes are more than the limit of {limits.max_bytes:,}.", code="file_too_large"
        )
    if not data:
        raise unreadable(filename, "the file is empty.")
    loader = _find(detect_format(data, filename=filename))
    document = loader.load(data, filename=filename, limits=limits)
    if not document.text.strip():
        raise unreadable(filename, "the file holds no text.")
    return document


def _find(format_name: str) -> Loader:
    third_party = _third_party().get(format_name)
    if third_party is not None:
        return cast("Loader", third_party.load())
    return cast("Loader", importlib.import_module(_BUILT_IN[format_name]))


def _third_party() -> dict[str, EntryPoint]:
    return {entry.name.lower(): entry for entry in entry_points(group="noria.loaders")}


def _format_of_zip(data: bytes, filename: str, extension: str) -> str:
    # The names in a zip's directory stand uncompressed at its end; a truncated one still shows its first members.
    if b"word/document" in data[-65_536:] or b"word/document" in data[:65_536] or extension == "docx":
        return "docx"
    raise _no_loader(filename, extension or "zip")


def _no_loader(filename: str, extension: str) -> Exception:
    what = _NOT_BUILT.get(extension, f".{extension} archives" if extension else "archives")
    return unreadable(
        filename,
        f"there is no loader for {what}.",
        hint="Convert it to PDF, DOCX, HTML, Markdown, text or CSV, or install a loader (entry point noria.loaders).",
    )
