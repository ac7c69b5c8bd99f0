"""Deploys behind a real nginx: every instance replaced under load, reloads with good code and with broken code."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from flask_prod.server.load import Load, Rotation, Tally, status
from tests import nginx
from tests.faults.load import SHORT
from tests.servers import Gunicorn, wait_for

pytestmark = pytest.mark.faults

ROUNDS, ENOUGH = (2, 500) if SHORT else (20, 20_000)
KINDS = ("gthread",) if SHORT else ("sync", "gthread", "gevent")
LAG = 1.0
"""Seconds between what readiness says and what the balancer does."""

DRAIN, SHUTDOWN = 2.5, 5.0
CONFIG = "python:flask_prod.server.gunicorn_conf"
SOURCE = """
import time
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("shop")
    ProdKit(app)

    @app.get("/")
    def home():
        time.sleep(0.03)
        return "hello"

    return app
"""


@dataclass
class Deploy:
    """Two instances of a service, and what is in front of them."""

    instances: tuple[Gunicorn, Gunicorn]
    balancer: nginx.Nginx

    def roll(self, number: int) -> tuple[int, float]:
        """Replace one instance as an orchestrator does; return its exit code and how long it took to end."""
        leaving, staying = self.instances[number % 2], self.instances[(number + 1) % 2]
        began = time.monotonic()
        leaving.term()
        wait_for(lambda: status(leaving.port, "/health/ready") == 503, 5, "the end of readiness")
        time.sleep(LAG)
        self.balancer.serve([staying.port])
        code, seconds = leaving.wait(DRAIN + SHUTDOWN + 5), time.monotonic() - began
        leaving.start()
        self.balancer.serve([one.port for one in self.instances])
        return code, seconds


@contextmanager
def deployed(program: str, kind: str) -> Iterator[Deploy]:
    """Start two instances of the application above and nginx in front of them."""
    env = {
        "ENVIRONMENT": "test",
        "RATE_LIMIT_PUBLIC": "1000000",
        "DRAIN_SECONDS": str(DRAIN),
        "SHUTDOWN_SECONDS": str(SHUTDOWN),
    }
    args = ["--worker-class", kind, "--workers", "2", "--log-level", "error"]
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(Gunicorn(source=SOURCE, config=CONFIG, args=args, env=env, ready="/health/ready"))
            for _ in range(2)
        )
        balancer = stack.enter_context(nginx.Nginx(program, [one.port, other.port]))
        yield Deploy((one, other), balancer)
        for instance in (one, other):
            instance.kill()  # what it does when it is asked to end has been seen


@pytest.fixture(scope="module")
def program(pytestconfig: pytest.Config) -> str:
    """Give nginx."""
    return nginx.provide(pytestconfig)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(600)
def test_rolling_restart(program: str, kind: str) -> None:
    """Whatever the kind of worker, nobody notices that all instances are replaced, one after the other."""
    with deployed(program, kind) as deploy:
        front = Rotation([deploy.balancer.port], None)
        with front, Load(front) as load:
            ends = [deploy.roll(number) for number in range(ROUNDS)]
            wait_for(lambda: load.tally.requests >= ENOUGH, 60, "enough requests")
        errors = deploy.balancer.errors
    print(kind, told(load.tally), f"slowest end {max(seconds for _, seconds in ends):.1f} s")

    assert load.tally.lost == 0, told(load.tally, errors)
    assert {code for code, _ in ends} == {0}
    assert max(seconds for _, seconds in ends) < DRAIN + SHUTDOWN + 1


@pytest.mark.parametrize("kind", KINDS)
def test_reload_with_good_and_with_broken_code(program: str, kind: str) -> None:
    """SIGHUP brings new code without a lost request; code that cannot be loaded is refused, the old goes on."""
    with deployed(program, kind) as deploy:
        instance = deploy.instances[0]
        file = instance.folder / "app.py"
        with Rotation([instance.port], None) as front, Load(front) as load:
            reload(instance)
            broken = SOURCE + "\nraise RuntimeError('a broken deploy')\n"
            file.write_text(broken)
            old = instance.worker_pids()
            instance.signal(signal.SIGHUP)
            time.sleep(4)
            assert instance.running
            assert instance.worker_pids() == old
            file.write_text(SOURCE.replace("hello", "hello again"))
            reload(instance)
        after = instance.get("/").text
    print(kind, told(load.tally))

    assert load.tally.lost == 0, told(load.tally, instance.stderr)
    assert after == "hello again"


def reload(instance: Gunicorn) -> None:
    """Send SIGHUP, and wait for new workers only."""
    old = set(instance.worker_pids())
    instance.signal(signal.SIGHUP)
    wait_for(
        lambda: len(set(instance.worker_pids()) - old) == 2 and not old & set(instance.worker_pids()),
        60,
        "new workers",
    )
    time.sleep(1)


def told(tally: Tally, more: str = "") -> str:
    """Return what happened in a few lines."""
    lines: Sequence[str] = (
        f"{tally.lost} of {tally.requests} lost, slowest {tally.slowest:.2f} s, {dict(tally.statuses)}",
        *tally.told,
        more[-2000:],
    )
    return "\n".join(lines)
