"""Tables of the trace store, on SQLite and PostgreSQL.

The schema is versioned by one row and brought up to date at start, without Alembic: the store is a file of its own with
six tables and, on SQLite, a full-text table that Alembic could not write anyway (design/0003). Knows nothing about what
the rows mean.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    text,
)  # fmt: skip
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql.expression import FromClause

from noria.errors import ConfigurationError, MissingExtra

VERSION = 1

metadata = MetaData()
# SQLite makes a column the row's own number, which costs nothing, only if its type reads INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

version_table = Table("trace_schema", metadata, Column("version", Integer, nullable=False))

traces = Table(
    "traces",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("project", String(200), nullable=False),
    Column("trace_id", String(32), nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger, nullable=False),
    Column("duration_ns", BigInteger, nullable=False),
    Column("root_rank", SmallInteger, nullable=False),
    Column("root_start_ns", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("error_type", Text),
    Column("model", Text),
    Column("service", Text),
    Column("key_id", Text),
    Column("session_id", Text),
    Column("user_id", Text),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("cost_usd", Float(53), nullable=False),
    Column("ttft_s", Float(53)),
    Column("span_count", Integer, nullable=False),
    Column("error_count", Integer, nullable=False),
    Column("input_preview", Text),
    Column("output_preview", Text),
    UniqueConstraint("project", "trace_id"),
)
_t = traces.c
Index("traces_by_time", _t.project, _t.start_ns, _t.id)
for _name in ("status", "model", "name", "service"):
    Index(f"traces_by_{_name}", _t.project, _t[_name], _t.start_ns, _t.id)
for _name in ("key_id", "session_id", "user_id"):
    _given = _t[_name].is_not(None)
    Index(f"traces_by_{_name}", _t.project, _t[_name], _t.start_ns, _t.id, sqlite_where=_given, postgresql_where=_given)
for _name in ("duration_ns", "cost_usd", "total_tokens"):
    Index(f"traces_by_{_name}", _t.project, _t[_name])
Index("traces_by_age", _t.start_ns)

spans = Table(
    "trace_spans",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("trace", _Id, ForeignKey("traces.id"), nullable=False),
    Column("span_id", String(16), nullable=False),
    Column("parent_id", String(16)),
    Column("project", String(200), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("operation", Text),
    Column("start_ns", BigInteger, nullable=False),
    Column("duration_ns", BigInteger, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("error_type", Text),
    Column("model", Text),
    Column("provider", Text),
    Column("service", Text),
    Column("key_id", Text),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cost_usd", Float(53)),
    Column("ttft_s", Float(53)),
    Column("counted", SmallInteger, nullable=False),  # 1: its usage is its own, so sums may add it
    Column("rest", LargeBinary, nullable=False),
    UniqueConstraint("trace", "span_id"),
)
_counted = spans.c.counted == 1
Index("trace_spans_counted", spans.c.project, spans.c.start_ns, sqlite_where=text("counted = 1"), postgresql_where=_counted)

bodies = Table(
    "trace_bodies",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(16), nullable=False, unique=True),
    Column("uses", BigInteger, nullable=False),
    Column("codec", SmallInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

labels = Table(
    "trace_labels",
    metadata,
    Column("trace", _Id, ForeignKey("traces.id"), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("value", String(1000), nullable=False),
    Index("trace_labels_by_value", "key", "value", "trace"),
)

_SEARCH = {
    # No positions and no text: a sixth of the size of a full index and half the time to write. Words are matched, not
    # phrases; Chinese is cut into pairs of characters before it comes here.
    "sqlite": ("CREATE VIRTUAL TABLE trace_search USING fts5(text, content='', detail='none', columnsize=0, tokenize=ascii)",),
    "postgresql": (
        "CREATE TABLE trace_search (id bigint PRIMARY KEY, words tsvector NOT NULL)",
        "CREATE INDEX trace_search_words ON trace_search USING gin (words)",
    ),
}


class _Hinting(SQLiteCompiler):
    """Writes `with_hint(table, "INDEXED BY …")` into the statement; SQLAlchemy's own leaves hints out for SQLite."""

    def get_from_hint_text(self, table: FromClause, text: str | None) -> str | None:
        return text


def open_engine(url: str, *, writer: bool, pool_size: int = 4) -> Engine:
    """An engine for the trace store's URL (`sqlite:///…` or `postgresql://…`); a reader's connections cannot write."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(f"The trace store's URL cannot be read: {error}") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError("The trace store needs a file.", hint="Use sqlite:////absolute/path/traces.db.")
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            parsed.set(drivername="sqlite+pysqlite", query={}),
            pool_size=pool_size,
            connect_args={"check_same_thread": False, "timeout": 5},
        )
        engine.dialect.statement_compiler = _Hinting
        _tune_sqlite(engine, writer=writer)
        return engine
    if backend == "postgresql":
        try:
            import psycopg  # noqa: F401 # pyright: ignore[reportUnusedImport]
        except ImportError as error:
            raise MissingExtra("Keeping traces in PostgreSQL", "postgres") from error
        connect = {"connect_timeout": 5}  # a server that is away must not keep a request waiting
        parsed = parsed.set(drivername="postgresql+psycopg")
        return create_engine(parsed, pool_size=pool_size, pool_pre_ping=True, pool_timeout=5, connect_args=connect)
    raise ConfigurationError(f"Traces cannot be kept in {backend!r}.", hint="Use SQLite or PostgreSQL.")


def migrate(engine: Engine) -> None:
    """Make the tables, or check that they are of this version."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
        if not inspect(connection).has_table(version_table.name):
            _create(connection)
            return
        found = connection.execute(select(func.max(version_table.c.version))).scalar_one()
        if found != VERSION:
            raise ConfigurationError(
                f"The trace store has version {found} of its tables, this Noria knows version {VERSION}.",
                hint="Start the Noria that wrote it, or move the file away to start a new one.",
            )


# Names the advisory lock under which ids are given out in PostgreSQL, so that two servers can share one database.
LOCK = 0x6E6F726961


def _create(connection: Connection) -> None:
    metadata.create_all(connection)
    for statement in _SEARCH[connection.dialect.name]:
        connection.execute(text(statement))
    connection.execute(insert(version_table).values(version=VERSION))


def _tune_sqlite(engine: Engine, *, writer: bool) -> None:
    def connected(connection: object, _record: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined] # transactions are begun below, by us
        execute = connection.execute  # type: ignore[attr-defined]
        if writer:
            # Before the first table, or it has no effect: lets deleted traces give their pages back bit by bit.
            execute("PRAGMA auto_vacuum=INCREMENTAL")
            execute("PRAGMA journal_mode=WAL")
            execute("PRAGMA synchronous=NORMAL")
            execute("PRAGMA cache_size=-65536")
            # Deleted text is overwritten where its page is written anyway; ON would write merged index pages twice.
            execute("PRAGMA secure_delete=FAST")
            execute("PRAGMA wal_autocheckpoint=4000")
            execute("PRAGMA journal_size_limit=67108864")
        else:
            execute("PRAGMA query_only=1")
            execute("PRAGMA cache_size=-16384")
        execute("PRAGMA mmap_size=0")
        execute("PRAGMA temp_store=MEMORY")

    def began(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", began)
