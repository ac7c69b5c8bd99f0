"""What happens after the answer: the confirmation mail, written by a worker."""

from __future__ import annotations

import logging
import os
from datetime import timedelta

from sqlalchemy import select, update

from flask_prod.core.component import Finding
from flask_prod.core.errors import Unavailable

from .extensions import prod
from .mail import confirmation, deliver
from .models import Order, now
from .settings import shop_settings

logger = logging.getLogger(__name__)

CATCH_UP_AFTER = timedelta(seconds=30)
"""An order still pending after this long was left behind: its own request is over by then."""

CATCH_UP_AT_ONCE = 10
"""How many of those one checkout queues along with its own."""


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


def queue_confirmation(order: Order) -> None:
    """Queue an order's mail, and those that found no queue before.

    Never fails: the order stands, and stays marked as pending until a queue takes its mail.
    """
    order_id = order.id
    session = prod.db.session
    try:
        late = session.scalars(
            select(Order.id)
            .where(Order.mail_pending, Order.created_at < now() - CATCH_UP_AFTER)
            .limit(CATCH_UP_AT_ONCE)
        ).all()
        for one in (order_id, *late):
            send_confirmation.dispatch(order_id=one)
            session.execute(update(Order).where(Order.id == one).values(mail_pending=False))
            session.commit()
    except Exception as error:  # whatever it is, the customer's order is placed
        session.rollback()
        if not isinstance(error, Unavailable):
            prod.capture_error(error, order_id=order_id)
        logger.warning("The mail of order %s waits for the queue: %s", order_id, type(error).__name__)


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
