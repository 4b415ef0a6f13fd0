"""What answered, and in which precision, is kept with each result; not known of older ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    runtime = sa.Column("runtime", sa.String(length=64), nullable=False, server_default="")
    op.add_column("result", runtime)
