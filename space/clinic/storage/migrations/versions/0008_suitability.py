"""What was found unsuitable, what was answered all the same, and a doctor's own operating point."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("findings", "tile_findings", "ignored"):
        op.add_column("result", sa.Column(name, sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("account", sa.Column("point", sa.String(length=64), nullable=True))
