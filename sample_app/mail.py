"""Sending mail: into a folder, or to a server where MAIL_URL names one."""

from __future__ import annotations

import os
import secrets
import smtplib
from collections.abc import Sequence
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .models import CartItem, Order, User
from .settings import ShopSettings

SMTP_TIMEOUT = 10.0
"""Seconds; a mail server that is slower is asked again by the job's next attempt."""


def confirmation(order: Order, sender: str) -> EmailMessage:
    """Write the mail that confirms *order*."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = order.user.email
    message["Subject"] = f"Your order {order.id} at Harbour Goods"
    message["Date"] = order.created_at
    # The same on every attempt: a server that has seen it can tell the second copy.
    message["Message-ID"] = f"<order-{order.id}@harbour-goods.example>"
    lines = [f"{item.quantity} x {item.name}: {euros(item.price_cents * item.quantity)}" for item in order.items]
    place = f"We send it to:\n{order.address}" if order.address else "You collect it in the shop."
    message.set_content(
        f"Dear {order.user.name},\n\nthank you for your order.\n\n"
        + "\n".join(lines)
        + f"\n\nTotal: {euros(order.total_cents)}\n\n{place}\n\nHarbour Goods\n"
    )
    return message


def apology(user: User, sender: str) -> EmailMessage:
    """Write the mail to somebody whose order we could not take."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = user.email
    message["Subject"] = "We could not take your order"
    message.set_content(
        f"Dear {user.name},\n\nour carrier did not answer, so we could not take your order. Your cart is kept:\n"
        "please try again.\n\nHarbour Goods\n"
    )
    return message


def reminder(user: User, items: Sequence[CartItem], sender: str) -> EmailMessage:
    """Write the mail that reminds somebody of a cart."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = user.email
    message["Subject"] = "Your cart at Harbour Goods"
    lines = [f"{item.quantity} x {item.product.name}: {euros(item.total_cents)}" for item in items]
    message.set_content(
        f"Dear {user.name},\n\nthis still lies in your cart:\n\n" + "\n".join(lines) + "\n\nHarbour Goods\n"
    )
    return message


def sales_report(day: datetime, orders: int, total_cents: int, settings: ShopSettings) -> EmailMessage:
    """Write the mail that tells of a day's sales."""
    message = EmailMessage()
    message["From"] = settings.mail_from
    message["To"] = settings.report_to or settings.mail_from
    message["Subject"] = f"Sales of {day:%Y-%m-%d}"
    message.set_content(f"Orders: {orders}\nTurnover: {euros(total_cents)}\n")
    return message


def deliver(message: EmailMessage, name: str, settings: ShopSettings) -> None:
    """Send *message*; *name* is its own, and what the file in the mail folder is called."""
    if settings.mail_url:
        _send(message, settings.mail_url.reveal())
    else:
        write_once(settings.mail_folder / f"{name}.eml", message.as_bytes())


def write_once(path: Path, content: bytes) -> bool:
    """Write a file whole and only if it is not there yet; return whether it was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_bytes(content)
        os.link(draft, path)  # unlike rename, this fails if somebody else has written the file
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def euros(cents: int) -> str:
    """Return an amount as people read it: 1,234.50 euros."""
    return f"€{cents // 100:,}.{cents % 100:02}"


def _send(message: EmailMessage, url: str) -> None:
    parts = urlsplit(url)
    client = smtplib.SMTP_SSL if parts.scheme == "smtps" else smtplib.SMTP
    with client(parts.hostname or "", parts.port or 0, timeout=SMTP_TIMEOUT) as server:
        if parts.username:
            if parts.scheme != "smtps":
                server.starttls()
            server.login(unquote(parts.username), unquote(parts.password or ""))
        server.send_message(message)
