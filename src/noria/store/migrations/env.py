"""Alembic's entry: runs the migrations in this folder over a synchronous connection, all in one transaction.

A process killed in the middle leaves the database as it was. Python's `sqlite3` begins no transaction for a CREATE or
ALTER, each of which would be final by itself: so on SQLite we begin it.
Source: https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
"""

from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine, event, pool

from noria.store._tables import Base


def _connected(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    # Tables are copied and dropped; inside the transaction it could not be switched off any more.
    connection.execute("PRAGMA foreign_keys=OFF")


def _began(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


url = context.config.get_main_option("sqlalchemy.url")
assert url is not None
engine = create_engine(url, poolclass=pool.NullPool)
if engine.dialect.name == "sqlite":
    event.listen(engine, "connect", _connected)
    event.listen(engine, "begin", _began)
with engine.begin() as connection:
    if engine.dialect.name == "postgresql":
        # Two servers that start at once on an empty database must not both migrate it.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(682157431)")
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
