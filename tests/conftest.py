"""Fixtures of the whole suite, and the two that police it: a clean environment, and nothing left behind."""

from __future__ import annotations

import gc
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, current_app
from hypothesis import HealthCheck, settings

from flask_prod import ProdKit
from flask_prod.components.logs.bridge import RootHandler
from flask_prod.core.record import current_record, leave
from tests import servers
from tests.apps import MakeApp, StartFaultProxy, StartGunicorn, StartValkey

_KEPT = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|TZ|LANG|LC_\w+|TMPDIR|VIRTUAL_ENV|LD_\w+|SSL_CERT_\w+|\w+_proxy"
    r"|FAULTS_SECONDS|PYTHON\w+|PYTEST_\w+|COVERAGE_\w+|COV_\w+|NO_COLOR|CI"
)
"""The only variables of a developer's shell that a test may see: any other could be one of our settings."""

_LONG = {"canaries", "faults", "sample_app", "server"}
"""Folders of tests that start many processes."""


def pytest_collection() -> None:
    """Look for no garbage while thousands of tests are imported: they stay."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage again, in what comes from now on."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders whose files take longest: no process is alone with one of them at the end."""
    items.sort(key=lambda item: _LONG.isdisjoint(item.path.parts))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let every report travel: what tests print may be no text, and processes tell one another UTF-8."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_configure() -> None:
    """Let examples of hypothesis take the time that a busy machine needs; a test's own settings win.

    A run in the background of a script ignores SIGINT, and so would all that it starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile("flask-prod", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("flask-prod")


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make one directory for everything the run's code puts into the temporary directory."""
    servers.remove_abandoned()
    folder = tmp_path_factory.mktemp("scratch", numbered=False)
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    yield folder
    tempfile.tempdir = before
    os.environ.pop("TMPDIR")
    if variable is not None:
        os.environ["TMPDIR"] = variable


@pytest.fixture(autouse=True)
def nothing_left_behind(scratch: Path) -> Iterator[None]:
    """Fail the test that leaves a thread, a process, a temporary file, an open application or its context.

    Stray sockets and files fail by ResourceWarning, since warnings are errors.
    """
    context = bool(current_app)
    threads = set(threading.enumerate())
    processes = servers.children()
    files = set(os.listdir(scratch))
    yield
    # A service's RUN_DIR stays where it is, and its threads may still write; the next test's begins without.
    run_dir = f"flask-prod-{os.getuid()}-"
    for folder in scratch.glob(f"{run_dir}*"):
        shutil.rmtree(folder, ignore_errors=True)
    for thread in set(threading.enumerate()) - threads:
        if not thread.daemon:
            thread.join(1)
    left = [repr(t) for t in set(threading.enumerate()) - threads if not t.daemon]
    for handler in [one for one in logging.getLogger().handlers if isinstance(one, RootHandler)]:
        logging.getLogger().removeHandler(handler)
        left.append("an application that was not closed and goes on logging")
    if current_app and not context:
        left.append(f"the context of {current_app.name}")
    left += [f"process {pid}" for pid in servers.children() - processes]
    files |= {name for name in os.listdir(scratch) if name.startswith(run_dir)}
    left += [f"temporary file {name}" for name in set(os.listdir(scratch)) - files]
    if left:
        pytest.fail(f"left behind: {', '.join(left)}", pytrace=False)


@pytest.fixture(autouse=True)
def no_request_goes_on() -> Iterator[None]:
    """End the request of an answer that a test left open, as a server would: no test sees another."""
    yield
    while (record := current_record()) is not None:
        leave(record)


@pytest.fixture(autouse=True)
def clean_environment(nothing_left_behind: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's variables, .env, secret files and profiles from the settings."""
    for name in os.environ:
        if not _KEPT.fullmatch(name):
            monkeypatch.delenv(name)
    for name in ("ENV_FILE", "SECRETS_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(name, os.devnull)  # neither a file nor a directory: nothing is read


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[MakeApp]:
    """Give a factory of applications called shop, each with a kit; their kits are closed afterwards."""
    made: list[Flask] = []

    def make(
        *,
        kit: ProdKit | None = None,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
        **config: Any,
    ) -> Flask:
        app = Flask("shop", root_path=str(tmp_path), instance_path=str(tmp_path / "instance"))
        app.config.update(ENVIRONMENT="test")
        app.config.update(config)
        (kit or ProdKit(only=only, without=without)).init_app(app)
        made.append(app)
        return app

    yield make
    for app in reversed(made):
        app.extensions["prod"].lifecycle.close()


@pytest.fixture
def valkey() -> Iterator[servers.Valkey]:
    """Run a Valkey of its own for this test: pause it, kill it, start it again."""
    with servers.Valkey() as server:
        yield server


@pytest.fixture
def start_valkey() -> Iterator[StartValkey]:
    """Give a factory of Valkeys with options: `start_valkey(aof=True)`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(servers.Valkey(**options))


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[servers.Valkey]:
    """Run one Valkey for the whole run; tests take `redis_url`."""
    with servers.Valkey() as server:
        yield server


@pytest.fixture
def redis_url(shared_valkey: servers.Valkey) -> str:
    """Give an empty database on the shared Valkey."""
    shared_valkey.command("FLUSHALL", "SYNC")
    return shared_valkey.url


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[servers.Postgres]:
    """Run one PostgreSQL for the whole run; tests take `postgres_url`."""
    with servers.Postgres() as server:
        yield server


@pytest.fixture
def postgres_url(shared_postgres: servers.Postgres) -> Iterator[str]:
    """Give a fresh database on the shared PostgreSQL, as an SQLAlchemy address."""
    with shared_postgres.database() as url:
        yield url


@pytest.fixture
def gunicorn() -> Iterator[StartGunicorn]:
    """Give a factory of gunicorns: `gunicorn("app:create_app()", source=..., args=["-w", "2"])`."""
    with ExitStack() as stack:

        def start(app: str = "app:create_app()", **options: Any) -> servers.Gunicorn:
            return stack.enter_context(servers.Gunicorn(app, **options))

        yield start


@pytest.fixture
def fault_proxy() -> Iterator[StartFaultProxy]:
    """Give a factory of misbehaving proxies: `fault_proxy(valkey.port).set("blackhole")`."""
    with ExitStack() as stack:
        yield lambda upstream: stack.enter_context(servers.FaultProxy(upstream))


@pytest.fixture
def http_sink() -> Iterator[servers.HttpSink]:
    """Run an HTTP server that keeps what it is sent; set its `mode` to "hang" or a status code."""
    with servers.HttpSink() as sink:
        yield sink


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """Give `servers.wait_for`: poll a condition with a time limit."""
    return servers.wait_for
