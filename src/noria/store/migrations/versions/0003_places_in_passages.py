"""Where page and heading change inside a passage"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    # Passages that are there keep one place, that of their beginning, until their file is put in again.
    with op.batch_alter_table("passage", schema=None) as batch_op:
        batch_op.add_column(sa.Column("places", _JSON, nullable=False, server_default="[]"))


def downgrade() -> None:
    with op.batch_alter_table("passage", schema=None) as batch_op:
        batch_op.drop_column("places")
