"""The embedded text index: BM25 by tantivy over segmented, stemmed terms.

Tantivy's commit is atomic and its writer holds a file lock; a reader works on the last commit. A writer costs seven threads, so
there is one only from the first change to the next `rest`. A filter that leaves few files goes into the query as a set of
file ordinals; a wide one is applied to the ranking, which is then taken longer.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from noria.errors import Conflict, Unavailable
from noria.knowledge.index._contract import AllowedFiles, Ints, Ranking, RebuildNeeded
from noria.knowledge.index._terms import query_terms, segment, text_analyzer

__all__ = ["TantivyTextIndex"]

_ANALYZER = "noria"
_WRITER_BYTES = 64 * 1024 * 1024
_FORMAT_FILE = "noria-format"
_FORMAT = "2"  # raise it when terms are made differently: the index must then be rebuilt
_WIDE_SHARE = 0.08  # share of files from which filtering a longer ranking is cheaper than asking for each file


class TantivyTextIndex:
    """Opens the index in `folder`, or makes a new one; raises RebuildNeeded.

    A change raises Conflict when another process writes to it, Unavailable when the disk takes nothing.
    """

    def __init__(self, folder: Path) -> None:
        import tantivy

        self._tantivy: Any = tantivy
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._schema: Any = (
            tantivy.SchemaBuilder()
            .add_unsigned_field("id", stored=False, indexed=True, fast=True)
            .add_unsigned_field("file", stored=False, indexed=True, fast=True)
            .add_text_field("body", stored=False, tokenizer_name=_ANALYZER, index_option="freq")
            .build()
        )
        self._index: Any = self._open()
        self._index.register_tokenizer(_ANALYZER, text_analyzer())
        self._writing = threading.Lock()
        self._writer: Any = None

    def __len__(self) -> int:
        return int(self._index.searcher().num_docs)

    def add(self, ids: Ints, files: Ints, texts: Sequence[str]) -> None:
        assert len(ids) == len(texts) == len(files), "one text and one file per id"
        with self._changing() as writer:
            self._delete(writer, ids)
            for identifier, ordinal, text in zip(ids.tolist(), files.tolist(), texts, strict=True):
                document = self._tantivy.Document()
                document.add_unsigned("id", identifier)
                document.add_unsigned("file", ordinal)
                document.add_text("body", segment(text))
                writer.add_document(document)

    def remove(self, ids: Ints) -> None:
        with self._changing() as writer:
            self._delete(writer, ids)

    def ids(self, files: Ints | None = None) -> Ints:
        searcher, query = self._index.searcher(), self._tantivy.Query
        if not searcher.num_docs:
            return np.empty(0, np.int64)
        asked = query.all_query() if files is None else query.term_set_query(self._schema, "file", files.tolist())
        addresses = [address for _, address in self._hits(searcher, asked, searcher.num_docs)]
        return np.array(searcher.fast_field_values("id", addresses), np.int64)

    def search(self, query: str, k: int, allowed: AllowedFiles | None = None) -> Ranking:
        terms = list(query_terms(query))
        if not terms or k <= 0:
            return Ranking.empty()
        searcher = self._index.searcher()
        asked = self._any_of(terms)
        if allowed is None:
            return _ranking(searcher, self._hits(searcher, asked, k))
        share = allowed.estimated_share()
        if share == 0.0:
            return Ranking.empty()
        if share >= _WIDE_SHARE:
            depth = int(2 * k / share) + k
            hits = self._hits(searcher, asked, depth)
            files = np.array(searcher.fast_field_values("file", [address for _, address in hits]), np.int64)
            kept = np.flatnonzero(allowed.allow(files))[:k]
            # Too few when the allowed files are poorer in these words than their share: then the query has to filter.
            if len(kept) == k or len(hits) < depth:
                return _ranking(searcher, [hits[row] for row in kept])
        return _ranking(searcher, self._hits(searcher, self._within(asked, allowed), k))

    def rest(self) -> None:
        """Wait for merges and let the writer go, until the next change."""
        with self._writing:
            writer, self._writer = self._writer, None
            if writer is not None:
                with contextlib.suppress(ValueError):  # a merge that failed changes nothing
                    writer.wait_merging_threads()

    def close(self) -> None:
        """Let go of the files and the reader's thread; nothing may be asked of it after that."""
        self.rest()
        self._index = None

    def _open(self) -> Any:
        format_file = self._folder / _FORMAT_FILE
        exists = self._tantivy.Index.exists(str(self._folder))
        if exists and (not format_file.exists() or format_file.read_text() != _FORMAT):
            raise RebuildNeeded(f"The text index in {self._folder} was made by another version.")
        try:
            index = self._tantivy.Index(self._schema, path=str(self._folder), reuse=True)
            index.config_reader(reload_policy="manual")
            index.reload()
        except (ValueError, OSError) as error:
            raise RebuildNeeded(
                f"The text index in {self._folder} cannot be used: {error}.", hint="It is rebuilt from the database."
            ) from error
        format_file.write_text(_FORMAT)
        return index

    @contextlib.contextmanager
    def _changing(self) -> Generator[Any]:
        """The writer; what it was given in the block is committed at the end, or none of it when anything raises."""
        with self._writing:
            try:
                writer = self._writer = self._writer or self._new_writer()
                yield writer
                writer.commit()
                self._index.reload()
            except BaseException as error:
                self._writer = None  # with what it was given; another begins at the last commit
                if isinstance(error, (ValueError, OSError)):
                    raise Unavailable(
                        f"The text index in {self._folder} cannot be written: {error}.",
                        hint="Is the disk full?",
                        retry_after_s=30,
                    ) from error
                raise

    def _new_writer(self) -> Any:
        try:
            return self._index.writer(heap_size=_WRITER_BYTES, num_threads=1)
        except ValueError as error:
            if "Lock" not in str(error):
                raise
            raise Conflict(
                f"The text index in {self._folder} is written by another process.",
                hint="Only one server may use a home at a time.",
            ) from error

    def _delete(self, writer: Any, ids: Ints) -> None:
        # Not delete_documents_by_term: it takes a Python int for a signed term and so finds nothing (tantivy 0.27).
        if len(ids):
            writer.delete_documents_by_query(self._tantivy.Query.term_set_query(self._schema, "id", ids.tolist()))

    def _any_of(self, terms: Sequence[str]) -> Any:
        query, occur = self._tantivy.Query, self._tantivy.Occur
        return query.boolean_query([(occur.Should, query.term_query(self._schema, "body", term, "freq")) for term in terms])

    def _within(self, asked: Any, allowed: AllowedFiles) -> Any:
        query, occur = self._tantivy.Query, self._tantivy.Occur
        files = query.term_set_query(self._schema, "file", allowed.ordinals().tolist())
        return query.boolean_query([(occur.Must, asked), (occur.Must, query.const_score_query(files, 0.0))])

    def _hits(self, searcher: Any, query: Any, k: int) -> list[tuple[float, Any]]:
        return searcher.search(query, k, count=False).hits


def _ranking(searcher: Any, hits: list[tuple[float, Any]]) -> Ranking:
    if not hits:
        return Ranking.empty()
    ids = np.array(searcher.fast_field_values("id", [address for _, address in hits]), np.int64)
    scores = np.array([score for score, _ in hits], np.float32)
    order = np.lexsort((ids, -scores))
    return Ranking(ids[order], scores[order])
