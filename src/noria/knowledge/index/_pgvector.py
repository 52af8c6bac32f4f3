"""Vectors in PostgreSQL: one table per index, HNSW for wide searches, exact comparison for narrow ones.

Every method blocks and takes a connection of a small pool. Works from pgvector 0.6; from 0.8 on, filtered graph searches
go on until they have enough rows, before that a search that comes back short is answered exactly. A graph takes vectors of
2,000 dimensions, from 0.7 on 4,000 as half-precision numbers; what is longer is compared exactly.
Source: https://github.com/pgvector/pgvector#filtering, https://github.com/pgvector/pgvector#half-precision-indexing
"""

from __future__ import annotations

import contextlib
import queue
import re
from collections.abc import Generator
from typing import Any

import numpy as np

from noria.errors import ConfigurationError, InvalidRequest, MissingExtra
from noria.knowledge.index._contract import AllowedFiles, Floats, Ints, Ranking, unit_vectors
from noria.store import explain_failure

__all__ = ["PgVectorIndex"]

_MAX_CONNECTIONS = 4
_CONNECT_S = 5
_SEARCH_WIDTH = 128  # hnsw.ef_search without a filter
_MAX_SEARCH_WIDTH = 1000  # pgvector's own limit
_EXACT_ROWS = 20_000  # estimated allowed rows up to which the graph is not used
_GRAPH_DIMENSIONS = 2_000
_HALF_GRAPH_DIMENSIONS = 4_000
_OF_FILES = " WHERE file = ANY(%s)"
_PREFIX = "noria_vector_"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


class PgVectorIndex:
    """`PgVectorIndex("postgresql://…", name="handbook", dimensions=384)`; makes its table when there is none.

    Raises MissingExtra without the extra `postgres`, ConfigurationError where the server has no pgvector.
    """

    def __init__(self, dsn: str, *, name: str, dimensions: int) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"{name!r} is no name for an index.", hint="Use lower-case letters, digits and _.")
        self._dsn = dsn
        self._dimensions = dimensions
        self._psycopg, self._sql, self._register = _load_drivers()
        self._table: Any = self._sql.Identifier(_PREFIX + name)
        self._name = name
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(_MAX_CONNECTIONS):
            self._idle.put(None)
        self._version = self._prepare()

    def add(self, ids: Ints, files: Ints, vectors: Floats) -> None:
        rows = unit_vectors(vectors, self._dimensions)
        assert len(rows) == len(ids) == len(files), "one vector and one file per id"
        with self._connection() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.execute(self._on("DELETE FROM {table} WHERE id = ANY(%s)"), (ids.tolist(),))
            with cursor.copy(self._on("COPY {table} (id, file, embedding) FROM STDIN WITH (FORMAT BINARY)")) as copy:
                copy.set_types(["int8", "int8", "vector"])
                for identifier, file, row in zip(ids.tolist(), files.tolist(), rows, strict=True):
                    copy.write_row((identifier, file, row))

    def remove(self, ids: Ints) -> None:
        with self._connection() as connection:
            connection.execute(self._on("DELETE FROM {table} WHERE id = ANY(%s)"), (ids.tolist(),))

    def ids(self, files: Ints | None = None) -> Ints:
        statement = self._on("SELECT id FROM {table}{where}", where="" if files is None else _OF_FILES)
        with self._connection() as connection:
            rows = connection.execute(statement, () if files is None else (files.tolist(),)).fetchall()
        return np.array([row[0] for row in rows], np.int64)

    def save(self) -> None:
        """Nothing is left to do: rows are durable when they are added."""

    def search(self, vector: Floats, k: int, allowed: AllowedFiles | None = None) -> Ranking:
        query = unit_vectors(vector, self._dimensions)[0]
        share = 1.0 if allowed is None else allowed.estimated_share()
        if share == 0.0 or k <= 0:
            return Ranking.empty()
        files = None if allowed is None else allowed.ordinals().tolist()
        with self._connection() as connection:
            if self._half is None or (files is not None and share * self._estimated_rows(connection) <= _EXACT_ROWS):
                return self._exact(connection, query, k, files)
            ranking = self._by_graph(connection, query, k, files, share)
            if files is not None and len(ranking.ids) < k:
                return self._exact(connection, query, k, files)
            return ranking

    def drop(self) -> None:
        """Delete the table."""
        with self._connection() as connection:
            connection.execute(self._on("DROP TABLE IF EXISTS {table}"))

    @staticmethod
    def drop_named(dsn: str, name: str) -> None:
        """Delete an index that is not open; absent is fine."""
        psycopg, sql, _ = _load_drivers()
        with _explained(psycopg), psycopg.connect(dsn, autocommit=True, connect_timeout=_CONNECT_S) as connection:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(_PREFIX + name)))

    @staticmethod
    def names(dsn: str) -> list[str]:
        """The indexes in this database."""
        psycopg, _, _ = _load_drivers()
        query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND starts_with(tablename, %s)"
        with _explained(psycopg), psycopg.connect(dsn, autocommit=True, connect_timeout=_CONNECT_S) as connection:
            return [row[0].removeprefix(_PREFIX) for row in connection.execute(query, (_PREFIX,)).fetchall()]

    def close(self) -> None:
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return
            if connection is not None:
                connection.close()

    @property
    def _half(self) -> bool | None:
        """Whether the graph is of half-precision numbers; None where there is no graph."""
        if self._dimensions <= _GRAPH_DIMENSIONS:
            return False
        return True if self._dimensions <= _HALF_GRAPH_DIMENSIONS and self._version >= (0, 7) else None

    def _prepare(self) -> tuple[int, ...]:
        """Make extension, table and indexes; returns pgvector's version."""
        with self._connection(register=False) as connection:
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except self._psycopg.Error as error:
                raise ConfigurationError(
                    "This PostgreSQL server has no pgvector.", hint="Install the extension `vector` on the server."
                ) from error
            row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
            self._version = tuple(int(part) for part in row[0].split(".")[:2])
            names = {
                "by_file": self._sql.Identifier(f"{_PREFIX}{self._name}_file"),
                "by_vector": self._sql.Identifier(f"{_PREFIX}{self._name}_hnsw"),
                "dimensions": self._sql.Literal(self._dimensions),
            }
            statements = [
                "CREATE TABLE IF NOT EXISTS {table} (id bigint PRIMARY KEY, file bigint NOT NULL,"
                " embedding vector({dimensions}) NOT NULL)",
                "CREATE INDEX IF NOT EXISTS {by_file} ON {table} (file)",
            ]
            if self._half is not None:
                column = "((embedding::halfvec({dimensions})) halfvec_ip_ops)" if self._half else "(embedding vector_ip_ops)"
                graph = f"CREATE INDEX IF NOT EXISTS {{by_vector}} ON {{table}} USING hnsw {column}"
                statements.append(graph + " WITH (m = 16, ef_construction = 100)")
            for statement in statements:
                connection.execute(self._sql.SQL(statement).format(table=self._table, **names))
            self._check_dimensions(connection)
            connection.close()
        return self._version

    def _check_dimensions(self, connection: Any) -> None:
        row = connection.execute(
            "SELECT atttypmod FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'embedding'",
            (_PREFIX + self._name,),
        ).fetchone()
        if row[0] != self._dimensions:
            raise InvalidRequest(
                f"The index {self._name} has {row[0]} dimensions, not {self._dimensions}.",
                hint="Was the embedding model changed? Then the store must be indexed again.",
            )

    def _estimated_rows(self, connection: Any) -> float:
        """From the planner's statistics; 0 (which means: be exact) until the table has been analysed."""
        row = connection.execute("SELECT reltuples FROM pg_class WHERE oid = %s::regclass", (_PREFIX + self._name,)).fetchone()
        return max(0.0, float(row[0]))

    def _exact(self, connection: Any, query: Floats, k: int, files: list[int] | None) -> Ranking:
        # Materialised, so that the planner cannot put the graph under it and filter afterwards.
        statement = self._on(
            "WITH allowed AS MATERIALIZED (SELECT id, embedding FROM {table}{where})"
            " SELECT id, embedding <#> %s AS distance FROM allowed ORDER BY distance, id LIMIT %s",
            where="" if files is None else _OF_FILES,
        )
        parameters = (query, k) if files is None else (files, query, k)
        return _ranking(connection.execute(statement, parameters).fetchall())

    def _by_graph(self, connection: Any, query: Floats, k: int, files: list[int] | None, share: float) -> Ranking:
        width = min(_MAX_SEARCH_WIDTH, int(max(_SEARCH_WIDTH, k) / share))
        # Half numbers find them, whole ones give the distance.
        statement = self._on(
            "SELECT id, embedding <#> %s AS distance FROM (SELECT id, embedding FROM {table}{where}"
            " ORDER BY embedding{half} <#> %s{half} LIMIT %s) AS nearest ORDER BY distance, id",
            where="" if files is None else _OF_FILES,
            half=f"::halfvec({self._dimensions})" if self._half else "",
        )
        with connection.transaction():
            connection.execute("SELECT set_config('hnsw.ef_search', %s, true)", (str(width),))
            if self._version >= (0, 8) and files is not None:
                connection.execute("SELECT set_config('hnsw.iterative_scan', 'strict_order', true)")
            parameters = (query, query, k) if files is None else (query, files, query, k)
            return _ranking(connection.execute(statement, parameters).fetchall())

    def _on(self, statement: str, **parts: str) -> Any:
        return self._sql.SQL(statement).format(table=self._table, **{name: self._sql.SQL(part) for name, part in parts.items()})

    @contextlib.contextmanager
    def _connection(self, *, register: bool = True) -> Generator[Any]:
        connection = self._idle.get()
        try:
            with _explained(self._psycopg):
                if connection is None or connection.closed:
                    connection = self._psycopg.connect(self._dsn, autocommit=True, connect_timeout=_CONNECT_S)
                    if register:
                        self._register(connection)
                yield connection
        finally:
            # A broken connection is closed by then: the next taker opens a new one.
            self._idle.put(connection)


@contextlib.contextmanager
def _explained(psycopg: Any) -> Generator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise explain_failure(error) or error from error


def _ranking(rows: list[tuple[int, float]]) -> Ranking:
    return Ranking(np.array([row[0] for row in rows], np.int64), np.array([-row[1] for row in rows], np.float32))


def _load_drivers() -> tuple[Any, Any, Any]:
    try:
        import psycopg
        import psycopg.sql
        from pgvector.psycopg import register_vector
    except ImportError as error:
        raise MissingExtra("The pgvector index", "postgres") from error
    return psycopg, psycopg.sql, register_vector
