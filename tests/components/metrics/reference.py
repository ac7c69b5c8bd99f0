"""Writes the reference in docs/metrics.md: `python -m tests.components.metrics.reference`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from flask import Flask

from flask_prod import ProdKit
from flask_prod.components.metrics.cli import APPLICATION, as_markdown
from flask_prod.server import connections

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
BEGIN, END = "<!-- reference -->\n", "\n<!-- end of reference -->"


def everything(folder: Path) -> Flask:
    """Build an application with all that measures switched on; nothing connects."""
    app = Flask("shop", root_path=str(folder), instance_path=str(folder / "instance"))
    app.config.update(
        ENVIRONMENT="test",
        RUN_DIR=str(folder / "run"),
        REDIS_URL="redis://127.0.0.1:9/0",
        DATABASE_URL="sqlite://",
        DATABASE_REPLICA_URLS="sqlite://",
        DATABASE_TENANTS="database",
        SENTRY_DSN="http://key@127.0.0.1:9/1",
        OTLP_ENDPOINT="http://127.0.0.1:9",
        RATE_LIMIT_PUBLIC="100",
        ALLOWED_ORIGINS=["https://shop.example"],
        ALLOWED_HOSTS=["shop.example"],
        SECURITY_CSP_REPORT_PATH="/csp",
        JOBS_OUTBOX="always",
    )
    prod = ProdKit()
    prod.job(everything)  # where there is no job, there is nothing to count
    prod.init_app(app)
    connections.watch(SimpleNamespace(wsgi=app, nr_conns=0))
    return app


def reference(folder: Path) -> str:
    """Return the table of all metrics of the rooms; *folder* is for what they write."""
    app = everything(folder)
    metrics = app.extensions["prod"].contributions["metrics"].handle
    rows = sorted(row for row in metrics.instruments.rows() if row.origin != APPLICATION)
    app.extensions["prod"].lifecycle.close()
    return as_markdown(rows)


def renewed(page: str, folder: Path) -> str:
    """Return the page with the table of today."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + reference(folder) + END + after


if __name__ == "__main__":
    with TemporaryDirectory(prefix="metrics-") as place:
        PAGE.write_text(renewed(PAGE.read_text(), Path(place)))
