"""Whether the carrier goes to an address: asked before anything is bought."""

from __future__ import annotations

import urllib3
from flask import abort
from werkzeug.exceptions import BadGateway

from flask_prod.core.errors import Unavailable

from .extensions import prod
from .jobs import send_apology
from .models import User
from .settings import shop_settings

CARRIER_TIMEOUT = 3.0
"""Seconds; nobody waits longer in front of a button."""


class CarrierAway(BadGateway):
    """The carrier does not answer; nothing was bought."""

    description = "Our carrier does not answer, so we could not take your order. Your cart is kept: try again."


def require_delivery(user: User, address: str) -> None:
    """Ask the carrier about *address* where CARRIER_URL names one; 422 if it does not go there, 502 if it is away.

    Who could not order because of us gets a mail.
    """
    url = shop_settings().carrier_url
    if not url or not address:
        return
    try:
        with prod.span("ask the carrier"):
            answer = urllib3.request(
                "POST", url.reveal(), json={"address": address}, timeout=CARRIER_TIMEOUT, retries=False
            )
    except urllib3.exceptions.HTTPError as error:
        _apologise(user)
        raise CarrierAway from error
    if answer.status == 422:
        abort(422, "Our carrier does not go to this address.")
    if answer.status >= 400:
        _apologise(user)
        raise CarrierAway


def _apologise(user: User) -> None:
    try:
        send_apology.dispatch(user_id=user.id)
        prod.db.session.commit()  # the outbox takes part in the transaction
    except Unavailable:
        prod.log.warning("No apology could be queued", user=user.id)
