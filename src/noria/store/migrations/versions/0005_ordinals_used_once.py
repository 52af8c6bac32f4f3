"""A file's ordinal in a store is never used again; indexes are compared with the rows and need no versions"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("vector_store", schema=None) as batch_op:
        batch_op.drop_column("version")
    # SQLite makes the table anew, which is the only way to AUTOINCREMENT; the counter begins at the highest ordinal there is.
    with op.batch_alter_table("store_file", schema=None, table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        batch_op.drop_column("changed_version")


def downgrade() -> None:
    with op.batch_alter_table("store_file", schema=None) as batch_op:
        batch_op.add_column(sa.Column("changed_version", sa.BigInteger(), nullable=False, server_default="0"))
    with op.batch_alter_table("vector_store", schema=None) as batch_op:
        batch_op.add_column(sa.Column("version", sa.BigInteger(), nullable=False, server_default="0"))
