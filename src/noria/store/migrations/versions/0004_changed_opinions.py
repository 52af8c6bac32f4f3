"""When feedback was last changed, and sources that no longer stand for their rows"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.add_column(sa.Column("updated_at", sa.BigInteger(), nullable=False, server_default="0"))
    # When earlier feedback was changed was not noted: as if it never had been.
    op.execute("UPDATE feedback SET updated_at = created_at")
    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_feedback_updated_at"), ["updated_at"], unique=False)

    with op.batch_alter_table("row_source", schema=None) as batch_op:
        batch_op.add_column(sa.Column("withdrawn", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    with op.batch_alter_table("row_source", schema=None) as batch_op:
        batch_op.drop_column("withdrawn")

    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_feedback_updated_at"))
        batch_op.drop_column("updated_at")
