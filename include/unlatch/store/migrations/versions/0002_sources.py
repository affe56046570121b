"""What is known of the sources: when each was last reached, and when it last said something.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "sources",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("hypervisor", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("since", sa.Text, nullable=False),
        sa.Column("reached_at", sa.Text, nullable=True),
        sa.Column("line_at", sa.Text, nullable=True),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("told_at", sa.Text, nullable=True),
    )


def downgrade() -> None:
    """Drop it again."""
    op.drop_table("sources")
