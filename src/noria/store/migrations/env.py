"""Alembic's entry: runs the migrations in this folder over a synchronous connection."""

from alembic import context
from sqlalchemy import create_engine, pool

from noria.store._tables import Base

url = context.config.get_main_option("sqlalchemy.url")
assert url is not None
engine = create_engine(url, poolclass=pool.NullPool)
with engine.begin() as connection:
    if engine.dialect.name == "postgresql":
        # Two servers that start at once on an empty database must not both migrate it.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(682157431)")
    else:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
