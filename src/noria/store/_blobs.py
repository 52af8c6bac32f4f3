"""Content-addressed blobs: a folder, or any store that fsspec reaches (`s3://…` needs the `s3` extra).

A blob's name is the SHA-256 of its bytes, so storing twice costs nothing and a reader can check what it got. A blob
is written under a temporary name and moved, so that a half-written one never carries a final name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

from noria.errors import ConfigurationError, MissingExtra, NotFound, PayloadTooLarge, Unavailable

__all__ = ["BlobRef", "Blobs"]

_PIECE = 1024 * 1024


class BlobRef(tuple[str, int]):
    """`(sha256, size in bytes)`."""

    __slots__ = ()

    @property
    def sha256(self) -> str:
        return self[0]

    @property
    def size(self) -> int:
        return self[1]


class Blobs:
    def __init__(self, url: str) -> None:
        import fsspec
        from fsspec.core import url_to_fs

        try:
            self._fs, root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            if url.startswith("s3://"):
                raise MissingExtra("A blob store on S3", "s3") from None
            raise ConfigurationError(f"blobs_url = {url!r} cannot be opened: {error}.", param="blobs_url") from None
        assert isinstance(self._fs, fsspec.AbstractFileSystem)
        self._root = str(root).rstrip("/")
        self.references = asyncio.Lock()
        """Hold it from making sure that a blob is there until a row names it, and from seeing that none does until it is
        deleted: else an upload could rely on bytes that a deletion is about to remove. One process serves one home."""

    def path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    async def put(self, pieces: bytes | AsyncIterator[bytes], *, max_bytes: int | None = None) -> BlobRef:
        """Stores bytes, whole or piece by piece. Raises PayloadTooLarge past `max_bytes`, leaving nothing behind."""
        writer = await asyncio.to_thread(_Writer, self._fs, self._root)
        try:
            if isinstance(pieces, bytes):
                await asyncio.to_thread(writer.write, pieces)
            else:
                async for piece in pieces:
                    if max_bytes is not None and writer.size + len(piece) > max_bytes:
                        raise PayloadTooLarge(f"The file is larger than {max_bytes:,} bytes.", hint="The limit is `max_file_mb`.")
                    await asyncio.to_thread(writer.write, piece)
            return await asyncio.to_thread(writer.commit, self.path)
        except OSError as error:
            raise _explain(error) from error
        finally:
            await asyncio.to_thread(writer.discard)

    async def exists(self, sha256: str) -> bool:
        return await asyncio.to_thread(self._fs.exists, self.path(sha256))

    async def get(self, sha256: str) -> bytes:
        """The whole blob. Raises NotFound."""
        try:
            return await asyncio.to_thread(self._fs.cat_file, self.path(sha256))
        except FileNotFoundError:
            raise NotFound(f"No blob {sha256}.", hint="The file's content was removed from the blob store.") from None

    def open(self, sha256: str) -> IO[bytes]:
        """The blob as a seekable file; blocks. Raises NotFound."""
        try:
            return self._fs.open(self.path(sha256), "rb")
        except FileNotFoundError:
            raise NotFound(f"No blob {sha256}.", hint="The file's content was removed from the blob store.") from None

    def pieces(self, sha256: str) -> Iterator[bytes]:
        with self._fs.open(self.path(sha256), "rb") as source:
            while piece := source.read(_PIECE):
                yield piece

    async def delete(self, sha256: str) -> None:
        """Removes a blob; absent is fine."""
        try:
            await asyncio.to_thread(self._fs.rm_file, self.path(sha256))
        except FileNotFoundError:
            return

    async def sweep(self, begun: float) -> None:
        """Removes what uploads that were cut off (`kill -9`) left behind: unfinished files from before `begun` (Unix seconds),
        when this process started. Jobs that it took up again may be writing younger ones."""
        await asyncio.to_thread(self._sweep, begun)

    def _sweep(self, begun: float) -> None:
        with contextlib.suppress(FileNotFoundError):
            for path in self._fs.ls(f"{self._root}/tmp", detail=False):
                if self._fs.modified(path).timestamp() < begun:
                    self._fs.rm(path)

    def put_before(self, moment: float) -> set[str]:
        """The SHA-256 of every blob put before this time (Unix seconds). Blocks. Of a store that is not a folder of this
        machine: none, for others may use it too."""
        from fsspec.implementations.local import LocalFileSystem

        if not isinstance(self._fs, LocalFileSystem):
            return set()
        entries: dict[str, Any] = dict(self._fs.find(self._root, detail=True))
        names = {path.rsplit("/", 1)[-1]: entry["mtime"] for path, entry in entries.items()}
        return {name for name, put_at in names.items() if len(name) == 64 and put_at < moment}


class _Writer:
    def __init__(self, fs: Any, root: str) -> None:
        self._fs, self._digest, self.size = fs, hashlib.sha256(), 0
        fs.makedirs(f"{root}/tmp", exist_ok=True)
        self._temporary = f"{root}/tmp/{secrets.token_hex(12)}"
        self._file: IO[bytes] | None = fs.open(self._temporary, "wb")

    def write(self, piece: bytes) -> None:
        assert self._file is not None
        self._file.write(piece)
        self._digest.update(piece)
        self.size += len(piece)

    def commit(self, place: Any) -> BlobRef:
        assert self._file is not None
        self._file.close()
        self._file = None
        sha256 = self._digest.hexdigest()
        final = place(sha256)
        if not self._fs.exists(final):
            self._fs.makedirs(final.rsplit("/", 1)[0], exist_ok=True)
            self._fs.mv(self._temporary, final)
        return BlobRef((sha256, self.size))

    def discard(self) -> None:
        try:
            if self._file is not None:
                self._file.close()
        except OSError:
            pass  # a full disk fails again on close; what matters is removing the piece below
        if self._fs.exists(self._temporary):
            self._fs.rm_file(self._temporary)


def _explain(error: OSError) -> Exception:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Unavailable(
            "The disk of the blob store is full.",
            code="disk_full",
            hint="Free some space and try again.",
            retry_after_s=30,
        )
    return error
