"""The operating point of an answer and what it missed in testing; not recorded of older ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    point = sa.Column("point", sa.String(length=64), nullable=False, server_default="")
    op.add_column("result", point)
    op.add_column("result", sa.Column("missed_of_100", sa.Integer(), nullable=True))
