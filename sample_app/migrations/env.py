"""Runs the migrations on the connection that `flask prepare` opened; it also owns the transaction."""

from __future__ import annotations

from alembic import context

from sample_app.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
