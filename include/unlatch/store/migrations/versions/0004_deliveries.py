"""What must still be told to somebody, in order.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "deliveries",
        sa.Column("position", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("delivery", sa.Text, nullable=False, unique=True),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("incident", sa.Text, nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("marker", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("queued_at", sa.Text, nullable=False),
        sa.Column("next_at", sa.Text, nullable=False),
        sa.Column("claimed_until", sa.Text, nullable=True),
        sa.Column("delivered_at", sa.Text, nullable=True),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=True),
    )
    op.create_index("deliveries_by_lane", "deliveries", ["incident", "channel", "position"])
    op.create_index("deliveries_due", "deliveries", ["state", "next_at"])


def downgrade() -> None:
    """Drop it again."""
    op.drop_table("deliveries")
