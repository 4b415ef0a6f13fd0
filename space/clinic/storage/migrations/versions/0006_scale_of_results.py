"""The scale that an answer is about, and its tiles; not recorded of older answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    scale = sa.Column("scale", sa.String(length=64), nullable=False, server_default="")
    tiles = sa.Column("tile_probabilities", sa.JSON(), nullable=False, server_default="[]")
    op.add_column("result", sa.Column("mpp", sa.Double(), nullable=True))
    op.add_column("result", scale)
    op.add_column("result", tiles)
