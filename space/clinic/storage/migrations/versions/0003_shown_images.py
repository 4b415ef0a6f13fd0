"""Images that answers were shown about, filled from the examinations whose answers were shown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shown_image",
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["account.id"],
            name=op.f("fk_shown_image_account_id"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("account_id", "sha256", name=op.f("pk_shown_image")),
    )
    op.create_index(op.f("ix_shown_image_sha256"), "shown_image", ["sha256"], unique=False)
    op.execute(
        "INSERT INTO shown_image (account_id, sha256, at)"
        " SELECT look.account_id, examined_image.sha256, MAX(look.at) FROM look"
        " JOIN examined_image ON examined_image.examination_id = look.examination_id"
        " GROUP BY look.account_id, examined_image.sha256"
    )
