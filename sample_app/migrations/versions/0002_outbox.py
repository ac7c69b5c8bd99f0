"""Mails by the outbox, and carts of which somebody was reminded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The statements of `flask prod jobs outbox ddl`, as a migration.
    op.create_table(
        "jobs_outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("job_id", sa.String(64), nullable=False, unique=True),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("job", sa.String(255), nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("due", sa.Double(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("moved", sa.Double(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("claim", sa.String(255), nullable=False),
        sa.Column("sent_to", sa.String(64), nullable=False),
        sa.Column("lease", sa.Double(), nullable=False),
        sa.Column("token", sa.String(40), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
    )
    op.create_index("ix_jobs_outbox_next", "jobs_outbox", ["status", "queue", "place", "id"])
    op.create_index("ix_jobs_outbox_moved", "jobs_outbox", ["status", "moved"])
    op.add_column("cart_items", sa.Column("reminded_at", sa.DateTime(timezone=True)))
    # Mails that no queue had taken: `flask send-pending-mails` sends them, as it does all that have not gone out.
    op.drop_index("ix_orders_mail_pending", "orders")
    op.drop_column("orders", "mail_pending")


def downgrade() -> None:
    op.add_column("orders", sa.Column("mail_pending", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_index("ix_orders_mail_pending", "orders", ["mail_pending"])
    op.drop_column("cart_items", "reminded_at")
    op.drop_table("jobs_outbox")
