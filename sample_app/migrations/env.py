"""Runs the migrations on the connection that `flask prepare` and `flask prod db` open."""

from __future__ import annotations

from alembic import context

from flask_prod.components.jobs.outbox.table import outbox_table
from sample_app.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=[Base.metadata, outbox_table("jobs_outbox").metadata],
    literal_binds=context.is_offline_mode(),
)
with context.begin_transaction():
    context.run_migrations()
