from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from flask_prod.core.errors import Unavailable
from sample_app.extensions import prod
from sample_app.jobs import queue_confirmation, send_confirmation
from sample_app.models import Order, User, now
from tests.sample_app.conftest import MakeShopApp, StartShop
from tests.servers import Process, Valkey, free_port


@pytest.fixture
def app(shop_app: MakeShopApp, redis_url: str) -> Iterator[Flask]:
    """Give a shop in its context, on an empty Redis."""
    app = shop_app(REDIS_URL=redis_url)
    with app.app_context():
        yield app


def test_mail_is_written_once(app: Flask, tmp_path: Path) -> None:
    """A job that is delivered twice writes one mail."""
    order = _order()

    send_confirmation(order)
    first = _mails(tmp_path)
    send_confirmation(order)

    assert list(first) == [f"{order}.eml"]
    assert _mails(tmp_path) == first


def test_crash_between_writing_and_noting_does_not_write_twice(app: Flask, tmp_path: Path) -> None:
    """A worker that died before it noted the mail leaves a file that the second delivery keeps."""
    order = _order()
    send_confirmation(order)
    first = _mails(tmp_path)
    prod.db.session.execute(update(Order).values(mail_sent_at=None))
    prod.db.session.commit()

    send_confirmation(order)

    assert _mails(tmp_path) == first
    assert prod.db.session.scalars(select(Order.mail_sent_at)).one() is not None


def test_order_that_is_gone_has_no_mail(app: Flask, tmp_path: Path) -> None:
    """A job for an order that does not exist ends quietly."""
    send_confirmation(4711)

    assert _mails(tmp_path) == {}


def test_mail_waits_while_redis_is_away(shop_app: MakeShopApp) -> None:
    """Nothing is raised, and the order stays marked."""
    app = shop_app(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    with app.app_context():
        order = prod.db.session.get_one(Order, _order())

        queue_confirmation(order)

        assert order.mail_pending


def test_mail_goes_out_when_redis_is_back(
    shop_app: MakeShopApp, valkey: Valkey, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., Any]
) -> None:
    """The process that could not queue a mail does it by itself, without another order."""
    monkeypatch.setattr("sample_app.jobs.CATCH_UP_AFTER", 0.2)
    app = shop_app(REDIS_URL=valkey.url)
    valkey.stop()
    with app.app_context():
        queue_confirmation(prod.db.session.get_one(Order, _order()))

    valkey.start()

    with app.app_context():
        wait_for(lambda: not prod.db.session.scalars(select(Order.id).where(Order.mail_pending)).all(), 20)
        assert prod.jobs.queue("emails").count == 1


def test_next_order_queues_what_was_left_behind(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the queue is back, the next order brings the waiting mails along; those of running requests stay."""
    old, running, mine = _order(age=timedelta(minutes=5)), _order(), _order()
    taken: list[int] = []
    monkeypatch.setattr(send_confirmation, "dispatch", lambda order_id: taken.append(order_id))

    queue_confirmation(prod.db.session.get_one(Order, mine))

    assert taken == [mine, old]
    pending = prod.db.session.scalars(select(Order.id).where(Order.mail_pending)).all()
    assert pending == [running]


def test_queue_that_fails_in_between_keeps_the_rest(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the queue did not take stays marked."""
    old, mine = _order(age=timedelta(minutes=5)), _order()

    def dispatch(order_id: int) -> None:
        if order_id == old:
            raise Unavailable("Redis is away")

    monkeypatch.setattr(send_confirmation, "dispatch", dispatch)
    queue_confirmation(prod.db.session.get_one(Order, mine))

    assert prod.db.session.scalars(select(Order.id).where(Order.mail_pending)).all() == [old]


def test_pending_mails_can_be_sent_without_a_queue(shop_app: MakeShopApp, tmp_path: Path) -> None:
    """`flask send-pending-mails` sends what is waiting, once."""
    app = shop_app()
    with app.app_context():
        orders = [_order(), _order()]
    runner = app.test_cli_runner()

    first, second = (runner.invoke(args=["send-pending-mails"]) for _ in range(2))

    assert (first.output, second.output) == ("2 mails sent.\n", "0 mails sent.\n")
    assert sorted(_mails(tmp_path)) == sorted(f"{order}.eml" for order in orders)


def test_worker_sends_the_mail(
    start_shop: StartShop, redis_url: str, tmp_path: Path, wait_for: Callable[..., Any]
) -> None:
    """From checkout over HTTP to the file, by a real worker."""
    shop = start_shop(REDIS_URL=redis_url)
    (tmp_path / "worker").mkdir()
    worker = Process(tmp_path / "worker")
    worker.launch([sys.executable, "-m", "flask", "--app", "sample_app", "prod", "worker"], shop.env, shop.folder)
    try:
        token = shop.buyer()
        order = shop.api("POST", "/checkout", token=token).json["id"]

        wait_for(lambda: shop.api("GET", f"/orders/{order}", token=token).json["mail_sent"], 30, "the mail")

        assert list(_mails(tmp_path)) == [f"{order}.eml"]
    finally:
        worker.finish(10)


def test_mail_folder_is_a_health_check(shop_app: MakeShopApp) -> None:
    """A mail folder that cannot be written shows as degraded, and takes nobody out of service."""
    app = shop_app(MAIL_DIR="/proc/mails")

    report = app.extensions["prod"].contributions["health"].handle.report()

    assert report.results["mail"][1].finding.status == "fail"
    assert report.state == "degraded"


def _order(age: timedelta = timedelta()) -> int:
    session = prod.db.session
    user = session.scalars(select(User)).first()
    order = Order(user=user, total_cents=100, address="", created_at=now() - age)
    session.add(order)
    session.commit()
    return order.id


def _mails(folder: Path) -> dict[str, bytes]:
    mails = folder / "mails"
    return {name: (mails / name).read_bytes() for name in os.listdir(mails)} if mails.exists() else {}
