"""What happens after the answer, and at its time: mails, the nightly report, and stock from the warehouse."""

from __future__ import annotations

import logging
import os
from datetime import timedelta

import urllib3
from sqlalchemy import func, select, update

from flask_prod.core.component import Finding

from .extensions import prod
from .mail import apology, confirmation, deliver, reminder, sales_report
from .models import CartItem, Order, Product, User, now
from .settings import shop_settings

logger = logging.getLogger(__name__)

CART_LEFT = timedelta(hours=1)
"""How long a cart lies untouched until its owner is reminded of it."""

REMINDED_AT_ONCE = 100

STOCK_TIMEOUT = 10.0
"""Seconds; a warehouse that is slower is asked again by the job's next attempt."""


class StockAway(Exception):
    """The warehouse did not say what it has; another attempt is worth it."""


@prod.job(queue="emails", retry=3)
def send_confirmation(order_id: int) -> None:
    """Send the mail that confirms an order, unless it was sent: a job may be delivered more than once."""
    session = prod.db.session
    order = session.get(Order, order_id)
    if order is None or order.mail_sent_at is not None:
        return
    settings = shop_settings()
    deliver(confirmation(order, settings.mail_from), str(order.id), settings)
    session.execute(update(Order).where(Order.id == order_id).values(mail_sent_at=now()))
    session.commit()


@prod.job(queue="emails", retry=3)
def send_apology(user_id: int) -> None:
    """Tell somebody whose order we could not take that the cart is kept; at most once a day."""
    user = prod.db.session.get(User, user_id)
    if user is not None:
        settings = shop_settings()
        deliver(apology(user, settings.mail_from), f"apology-{user_id}-{now():%Y%m%d}", settings)
        logger.info("Apologised to user %s", user_id)


@prod.cron("0 3 * * *", missed="run_once")
def report_sales() -> None:
    """Mail yesterday's sales to whoever runs the shop."""
    settings, today = shop_settings(), now().replace(hour=0, minute=0, second=0, microsecond=0)
    yesterday = today - timedelta(days=1)
    query = select(func.count(), func.coalesce(func.sum(Order.total_cents), 0))
    found = prod.db.session.execute(query.where(Order.created_at >= yesterday, Order.created_at < today)).one()
    message = sales_report(yesterday, found[0], found[1], settings)
    deliver(message, f"report-{yesterday:%Y%m%d}", settings)


@prod.every("10m")
def remind_of_carts() -> None:
    """Let everybody be reminded, once, whose cart has been left for an hour.

    The mark and the mail's job are one transaction: either both are there or none.
    """
    session = prod.db.session
    left = (
        select(CartItem.owner)
        .where(CartItem.owner.startswith("user:"), CartItem.reminded_at.is_(None))
        .group_by(CartItem.owner)
        .having(func.max(CartItem.added_at) < now() - CART_LEFT)
        .order_by(CartItem.owner)
        .limit(REMINDED_AT_ONCE)
    )
    for owner in session.scalars(left).all():
        session.execute(update(CartItem).where(CartItem.owner == owner).values(reminded_at=now()))
        send_reminder.dispatch(user_id=int(owner.removeprefix("user:")))
    session.commit()


@prod.job(queue="emails", retry=3)
def send_reminder(user_id: int) -> None:
    """Remind somebody of a cart, unless it was bought or emptied meanwhile; at most once a day."""
    session, settings = prod.db.session, shop_settings()
    user = session.get(User, user_id)
    items = session.scalars(select(CartItem).where(CartItem.owner == f"user:{user_id}")).all()
    if user is not None and items:
        deliver(reminder(user, items, settings.mail_from), f"reminder-{user_id}-{now():%Y%m%d}", settings)


@prod.every("15m", retry=5, timeout="60s", retry_on=(StockAway, urllib3.exceptions.HTTPError))
def sync_stock() -> None:
    """Ask the warehouse at STOCK_URL what has come in, and put it on the shelves; again when it stumbles.

    It answers how many units of each product ever came in, `{"received": {"mug": 12}}`: asking twice adds nothing.
    """
    url = shop_settings().stock_url
    if not url:
        return
    answer = urllib3.request("GET", url.reveal(), timeout=STOCK_TIMEOUT, retries=False)
    if answer.status != 200:
        raise StockAway(f"The warehouse answered {answer.status}.")
    received = answer.json()["received"]
    session = prod.db.session
    for slug, units in sorted(received.items()):
        more = {"stock": Product.stock + (units - Product.received), "received": units}
        session.execute(update(Product).where(Product.slug == slug, Product.received < units).values(more))
    session.commit()


def send_pending() -> int:
    """Send every mail that has not gone out, here and now; return how many."""
    waiting = prod.db.session.scalars(
        select(Order.id).where(Order.mail_sent_at.is_(None)).order_by(Order.id)
    ).all()
    for order_id in waiting:
        send_confirmation(order_id)
    return len(waiting)


@prod.health.check("mail", critical=False)
def mail_is_writable() -> Finding | None:
    """Say whether the mail folder can be written; a mail server is not asked, its outage is the job's to retry."""
    settings = shop_settings()
    if settings.mail_url:
        return None
    try:
        settings.mail_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Finding("fail", f"the mail folder cannot be made: {error.strerror}; see MAIL_DIR")
    return None if os.access(settings.mail_folder, os.W_OK) else Finding("fail", "the mail folder is read-only")
