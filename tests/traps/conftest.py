"""What trap tests share: the option --by-hand, shops in this process, and shops behind real gunicorn."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pytest

from tests.apps import StartGunicorn
from tests.components.error_tracking.conftest import items
from tests.servers import Answer, Gunicorn, HttpSink, free_port, wait_for

from .shops import DESCRIPTION, Shop, Wanted, open_by_hand, open_with_kit

KIT_SERVER = "python:flask_prod.server.gunicorn_conf"
SERVER_BY_HAND = """
import os
if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    from prometheus_flask_exporter.multiprocess import GunicornInternalPrometheusMetrics

    def child_exit(server, worker):
        GunicornInternalPrometheusMetrics.mark_process_dead_on_child_exit(worker.pid)
"""
"""gunicorn's configuration as the exporter's README has it."""


class Reported(Protocol):
    """Returns what Sentry was sent of a kind, once nothing more comes."""

    def __call__(self, kind: str = "event", at_least: int = 0) -> list[dict[str, Any]]:
        """Wait, and return it."""


class OpenShop(Protocol):
    """Opens a shop in this process; the arguments are the fields of `Wanted`."""

    def __call__(self, **wanted: Any) -> Shop:
        """Open one."""


class Crowd(Protocol):
    """Sends GETs by several clients at once, so that every worker has to serve."""

    def __call__(self, server: Gunicorn, path: str, count: int, at_once: int = 8) -> list[Answer]:
        """Return the answers."""


class ServeShop(Protocol):
    """Serves a shop by gunicorn; *views* is the text of a module that finds `shop` and `app` made."""

    def __call__(
        self, views: str, *, workers: int = 2, args: tuple[str, ...] = (), env: Any = (), **wanted: Any
    ) -> Gunicorn:
        """Serve one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --by-hand."""
    parser.addoption(
        "--by-hand", action="store_true", help="run the traps against the libraries composed by hand: they fail"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker that names what goes wrong by hand."""
    config.addinivalue_line("markers", "trap(goes_wrong): what this trap does to an application composed by hand")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """By hand, warnings are only what the libraries say: a trap must fail by what is seen from outside."""
    if config.getoption("--by-hand", default=False):
        for item in items:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def by_hand(pytestconfig: pytest.Config) -> bool:
    """Say which of the two is tried."""
    return bool(pytestconfig.getoption("--by-hand", default=False))


@pytest.fixture
def open_shop(by_hand: bool) -> Iterator[OpenShop]:
    """Give a factory of shops; the kits' are closed afterwards."""
    opened: list[Shop] = []

    def open_one(**wanted: Any) -> Shop:
        opened.append(open_by_hand(Wanted(**wanted)) if by_hand else open_with_kit(Wanted(**wanted)))
        return opened[-1]

    if by_hand:
        forget_global_state()
    yield open_one
    for shop in reversed(opened):
        if by_hand:
            forget_global_state()
        else:
            shop.app.extensions["prod"].lifecycle.close()


@pytest.fixture
def serve_shop(by_hand: bool, gunicorn: StartGunicorn) -> ServeShop:
    """Give a factory of gunicorns, each with a shop."""

    def serve(
        views: str, *, workers: int = 2, args: tuple[str, ...] = (), env: Any = (), **wanted: Any
    ) -> Gunicorn:
        # gunicorn is visited without TLS.
        kit = {"SECURITY_FORCE_HTTPS": False, **wanted.pop("kit", {})}
        description = {"by_hand": by_hand, "wanted": dataclasses.asdict(Wanted(kit=kit, **wanted))}
        source = f"from tests.traps.shops import described\n\nshop = described()\napp = shop.app\n{views}"
        return gunicorn(
            "app:app",
            source=source,
            config=SERVER_BY_HAND if by_hand else KIT_SERVER,
            args=("-w", str(workers), *args),
            env={DESCRIPTION: json.dumps(description), **dict(env)},
            ready="/healthz",
        )

    return serve


@pytest.fixture
def crowd() -> Crowd:
    """Give a function that visits a server by many clients."""

    def send(server: Gunicorn, path: str, count: int, at_once: int = 8) -> list[Answer]:
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda _: server.get(path), range(count)))

    return send


@pytest.fixture
def closed_redis() -> str:
    """Give the address of a Redis that is not there."""
    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
def errors_logged() -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged from ERROR on."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = found.append  # type: ignore[method-assign, assignment]  # keeps records, formats none
    logging.getLogger().addHandler(handler)
    yield found
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def reported(http_sink: HttpSink) -> Reported:
    """Give a function that reads what Sentry was sent."""

    def read(kind: str = "event", at_least: int = 0) -> list[dict[str, Any]]:
        import sentry_sdk

        sentry_sdk.flush(2)
        if at_least:
            wait_for(lambda: len(items(http_sink, kind)) >= at_least, 3, f"{at_least} of {kind}")
        return _settled(http_sink, kind)

    return read


def _settled(sink: HttpSink, kind: str) -> list[dict[str, Any]]:
    """Return the items once none has come for 0.3 s."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 0.3:
        if len(sink.requests) != seen:
            seen, since = len(sink.requests), time.monotonic()
        time.sleep(0.02)
    return items(sink, kind)


def forget_global_state() -> None:
    """Give the libraries' process-wide state back as a new process has it."""
    import sentry_sdk
    from prometheus_client import REGISTRY

    for collector in tuple(REGISTRY._collector_to_names):
        REGISTRY.unregister(collector)
    sentry_sdk.get_client().close()
    sentry_sdk.Scope.get_global_scope().set_client(None)
