"""Which libraries an application imports: one process that forks for each way to build one.

Run as `python -m tests.imported`; writes a line of JSON per case, its name and the libraries beyond Flask's own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flask

BEFORE = frozenset(sys.modules)
"""What Flask and this interpreter bring along."""

CONFIGURED = {
    "TRUSTED_PROXIES": 1,
    "LOG_FORMAT": "json",
    "LOG_OUTPUT": os.devnull,
    "ALLOWED_ORIGINS": ["https://shop.example"],
    "RATE_LIMIT_POLICIES": {"items": "100/1m"},
    "SENTRY_DSN": "http://key@127.0.0.1:9/1",
    "SENTRY_TRACES_SAMPLE_RATE": 0.01,
}
"""What the benchmark configures, in one process and without Redis."""


def cases() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield each way to build an application."""
    from flask_prod.core.registry import BUILT_IN

    yield "nothing", lambda: None
    for room in BUILT_IN:
        yield f"only {room}", partial(build, only=(room,))
    yield "default", build
    yield "configured", partial(build, CONFIGURED)
    yield "redis", partial(build, {"REDIS_URL": "redis://127.0.0.1:9/0"})
    yield "database", partial(build, {"DATABASE_URL": "sqlite://"})


def build(config: dict[str, Any] | None = None, **rooms: Any) -> None:
    """Build an application with a kit and a limited view."""
    from flask_prod import ProdKit

    app = flask.Flask("shop")
    app.config.update(ENVIRONMENT="test", **(config or {}))
    prod = ProdKit(app, **rooms)
    if "ratelimit" in app.extensions["prod"].contributions:
        app.add_url_rule("/", view_func=prod.limit("api")(lambda: "hello"))


def libraries() -> list[str]:
    """Return the top-level modules that were imported since, without Python's own and ours."""
    tops = {name.partition(".")[0] for name in sys.modules.keys() - BEFORE}
    ours = {"flask_prod", "tests", "flask", "werkzeug", "jinja2", "click", "markupsafe", "itsdangerous", "blinker"}
    return sorted(top for top in tops - sys.stdlib_module_names - ours if not top.startswith("_"))


def main() -> None:
    """Fork for each case, one after the other."""
    import flask_prod  # noqa: F401  # what is imported by its import is part of every case

    for name, make in cases():
        child = os.fork()
        if child == 0:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["RUN_DIR"] = folder
                make()
                print(json.dumps([name, libraries()]), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(f"{name} could not be built")


if __name__ == "__main__":
    main()
