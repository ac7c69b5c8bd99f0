from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, func, inspect, select, update

from flask_prod.components.jobs.outbox.table import outbox_table
from sample_app.extensions import prod
from sample_app.jobs import (
    StockAway,
    remind_of_carts,
    report_sales,
    send_confirmation,
    send_reminder,
    sync_stock,
)
from sample_app.models import CartItem, Order, Product, User, now
from tests.sample_app.conftest import MakeShopApp, StartShop
from tests.servers import HttpSink, Process, Valkey


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


def test_order_stands_while_redis_is_away(
    shop_app: MakeShopApp, valkey: Valkey, wait_for: Callable[..., Any]
) -> None:
    """Its mail waits in the outbox, and goes to the queue by itself once Redis is back."""
    app = shop_app(REDIS_URL=valkey.url)
    valkey.stop()
    with app.app_context():
        send_confirmation.dispatch(order_id=_order())
        prod.db.session.commit()
    app.test_client().get("/health/live")  # starts the relay, as a server does

    valkey.start()

    with app.app_context():
        wait_for(lambda: prod.jobs.queue("emails").count == 1, 20, "the mail in the queue")


def test_order_that_is_rolled_back_has_no_mail(app: Flask) -> None:
    """The mail's job is in the order's transaction."""
    send_confirmation.dispatch(order_id=1)
    prod.db.session.rollback()

    assert _outbox_rows() == 0


def test_outbox_of_the_migration_is_that_of_the_kit(app: Flask) -> None:
    """The shop's migration makes the table as the kit describes it."""
    wanted = outbox_table("jobs_outbox")
    found = inspect(prod.db.engine)

    assert {column["name"] for column in found.get_columns("jobs_outbox")} == set(wanted.columns.keys())
    indexes = {index["name"]: index["column_names"] for index in found.get_indexes("jobs_outbox")}
    assert {name: indexes[name] for name in indexes if str(name).startswith("ix_")} == {
        index.name: list(index.columns.keys()) for index in wanted.indexes
    }


def test_report_tells_of_yesterday(app: Flask, tmp_path: Path) -> None:
    """Orders of the day before are counted, and no others; a second delivery writes no second mail."""
    for days in (1, 1, 0):
        _order(age=timedelta(days=days))

    report_sales()
    report_sales()

    (mail,) = _mails(tmp_path).values()
    body = message_from_bytes(mail).get_payload(decode=True)
    assert body == "Orders: 2\nTurnover: €2.00\n".encode()


def test_cart_left_for_an_hour_is_recalled_once(app: Flask, tmp_path: Path) -> None:
    """Its owner gets one mail; a cart that is in use, or was bought meanwhile, gets none."""
    session = prod.db.session
    user = session.scalars(select(User)).one()
    other = User(email="bob@example.com", name="Bob", password_hash="")
    session.add(other)
    session.flush()
    session.add_all(
        [
            CartItem(owner=f"user:{user.id}", product_id=1, quantity=2, added_at=now() - timedelta(hours=2)),
            CartItem(owner=f"user:{other.id}", product_id=1, quantity=1, added_at=now() - timedelta(minutes=9)),
            CartItem(owner="guest:" + "0" * 32, product_id=1, quantity=1, added_at=now() - timedelta(days=2)),
        ]
    )
    session.commit()

    remind_of_carts()
    remind_of_carts()

    assert _outbox_rows() == 1
    send_reminder(user.id)
    assert [name.rpartition("-")[0] for name in _mails(tmp_path)] == [f"reminder-{user.id}"]
    session.execute(delete(CartItem))
    session.commit()
    send_reminder(other.id)
    assert len(_mails(tmp_path)) == 1


def test_stock_comes_from_the_warehouse(shop_app: MakeShopApp, http_sink: HttpSink) -> None:
    """Each unit is put on the shelf once; a warehouse that stumbles makes the job fail, to be tried again."""
    app = shop_app(STOCK_URL=http_sink.url)
    with app.app_context():
        product = prod.db.session.get_one(Product, 1)
        stock, received = product.stock, product.received
        http_sink.mode = 503
        with pytest.raises(StockAway):
            sync_stock()
        http_sink.mode = "ok"
        http_sink.answer = json.dumps({"received": {product.slug: received + 5, "unheard-of": 3}}).encode()
        sync_stock()
        sync_stock()

        prod.db.session.refresh(product)
        assert (product.stock, product.received) == (stock + 5, received + 5)


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


def _outbox_rows() -> int:
    return prod.db.session.scalar(select(func.count()).select_from(outbox_table("jobs_outbox"))) or 0


def _mails(folder: Path) -> dict[str, bytes]:
    mails = folder / "mails"
    return {name: (mails / name).read_bytes() for name in os.listdir(mails)} if mails.exists() else {}
