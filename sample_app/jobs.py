"""What happens after the answer: the confirmation mail, written by a worker."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from datetime import timedelta

from flask import Flask, current_app
from sqlalchemy import select, update

from flask_prod.core.component import Finding
from flask_prod.core.errors import Unavailable

from .extensions import prod
from .mail import apology, confirmation, deliver
from .models import Order, User, now
from .settings import shop_settings

logger = logging.getLogger(__name__)

CATCH_UP_AFTER = 5.0
"""Seconds; an order still pending after this long was left behind: its own request is over by then."""

RETRY = "shop_mail_retry"
"""Where the timer of the next attempt lies in `app.extensions`."""

CATCH_UP_AT_ONCE = 10
"""How many of those are queued along with another order."""


@prod.job(queue="emails", retry=3)
def send_confirmation(order_id: int) -> None:
    """Send the mail that confirms an order, unless it was sent: a job may be delivered more than once."""
    session = prod.db.session
    order = session.get(Order, order_id)
    if order is None or order.mail_sent_at is not None:
        return
    settings = shop_settings()
    deliver(confirmation(order, settings.mail_from), str(order.id), settings)
    session.execute(update(Order).where(Order.id == order_id).values(mail_sent_at=now(), mail_pending=False))
    session.commit()


@prod.job(queue="emails", retry=3)
def send_apology(user_id: int) -> None:
    """Tell somebody whose order we could not take that the cart is kept; at most once a day."""
    user = prod.db.session.get(User, user_id)
    if user is not None:
        settings = shop_settings()
        deliver(apology(user, settings.mail_from), f"apology-{user_id}-{now():%Y%m%d}", settings)
        logger.info("Apologised to user %s", user_id)


def queue_confirmation(order: Order) -> None:
    """Queue an order's mail, and those that found no queue before.

    Never fails: the order stands, and stays marked as pending until a queue takes its mail. This process tries
    again by itself; should it end before, the next order or `flask send-pending-mails` brings the mail along.
    """
    if not _queue_all(order.id):
        _try_again_later(current_app._get_current_object())  # type: ignore[attr-defined]


def _queue_all(*own: int) -> bool:
    """Queue the mails of these orders and of those left behind; return whether none is left."""
    session = prod.db.session
    try:
        late = _left_behind()
        for order_id in (*own, *late):
            send_confirmation.dispatch(order_id=order_id)
            session.execute(update(Order).where(Order.id == order_id).values(mail_pending=False))
            session.commit()
    except Exception as error:  # whatever it is, the customer's order is placed
        session.rollback()
        if not isinstance(error, Unavailable):
            prod.capture_error(error, orders=own)
        logger.warning("A mail waits for the queue: %s", type(error).__name__)
        return False
    return len(late) < CATCH_UP_AT_ONCE


def _left_behind() -> Sequence[int]:
    long_ago = now() - timedelta(seconds=CATCH_UP_AFTER)
    query = select(Order.id).where(Order.mail_pending, Order.created_at < long_ago).order_by(Order.id)
    return prod.db.session.scalars(query.limit(CATCH_UP_AT_ONCE)).all()


def _try_again_later(app: Flask) -> None:
    """Queue what was left behind in a few seconds, in one thread of this process however many orders wait."""

    def run() -> None:
        with app.app_context():
            if not _queue_all():
                _try_again_later(app)

    waiting: threading.Timer | None = app.extensions.get(RETRY)
    if waiting is None or waiting is threading.current_thread() or not waiting.is_alive():
        app.extensions[RETRY] = timer = threading.Timer(CATCH_UP_AFTER + 1, run)
        timer.daemon = True
        timer.start()


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
