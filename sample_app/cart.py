"""Carts, kept by the server: of a signed-in user, or of a guest who holds a token."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, abort, jsonify, request
from sqlalchemy import CursorResult, Update, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from .catalogue import find_product, product_json
from .extensions import prod
from .fields import json_fields
from .models import CartItem, Product, User
from .tokens import token_required, token_user_if_any

api = Blueprint("cart", __name__, url_prefix="/api/cart")

TOKEN_HEADER = "X-Cart-Token"  # noqa: S105  # the name of a header, not a token
MOST = 99
"""The most units of one product in a cart."""

_TOKEN = re.compile(r"[0-9a-f]{32}")


def new_token() -> str:
    """Return a token that nobody guesses: 128 random bits."""
    return secrets.token_hex(16)


def owner_of(user: User | None, token: str) -> str:
    """Return whose cart it is: the user's, else the guest's."""
    return f"user:{user.id}" if user is not None else f"guest:{token}"


def cart_items(owner: str) -> Sequence[CartItem]:
    """Return the lines of a cart in the order in which they were added."""
    query = select(CartItem).where(CartItem.owner == owner).order_by(CartItem.added_at, CartItem.product_id)
    return prod.db.session.scalars(query).all()


def count_units(owner: str) -> int:
    """Return how many units lie in a cart."""
    query = select(func.coalesce(func.sum(CartItem.quantity), 0)).where(CartItem.owner == owner)
    return prod.db.session.scalar(query) or 0


def add_to_cart(owner: str, product: Product, quantity: int) -> None:
    """Put *quantity* more units into a cart; 409 when so many are not there."""
    existing = prod.db.session.get(CartItem, (owner, product.id))
    set_quantity(owner, product, quantity + (existing.quantity if existing else 0))


def set_quantity(owner: str, product: Product, quantity: int) -> None:
    """Make a line of a cart *quantity* units, zero removes it; 409 when so many are not there.

    Only checkout takes stock: until then two carts may hold the same last unit.
    """
    if quantity > product.stock:
        abort(409, f"Only {product.stock} of {product.name} are left.")
    session = prod.db.session
    line = (CartItem.owner == owner, CartItem.product_id == product.id)
    if quantity <= 0:
        session.execute(delete(CartItem).where(*line))
    elif not _changed(update(CartItem).where(*line).values(quantity=min(quantity, MOST))):
        session.add(CartItem(owner=owner, product_id=product.id, quantity=min(quantity, MOST)))
    try:
        session.commit()
    except IntegrityError:  # a double click added the same line first; it has what was asked for
        session.rollback()


def merge_carts(guest: str, owner: str) -> None:
    """Move a guest's lines into the cart of the user they signed in as; commits."""
    session = prod.db.session
    mine = {item.product_id: item for item in cart_items(owner)}
    for item in cart_items(guest):
        if item.product_id in mine:
            mine[item.product_id].quantity = min(MOST, mine[item.product_id].quantity + item.quantity)
        else:
            session.add(CartItem(owner=owner, product_id=item.product_id, quantity=item.quantity))
        session.delete(item)
    try:
        session.commit()
    except IntegrityError:  # signed in twice at once: the other one moved the lines
        session.rollback()


def guest_token() -> str:
    """Return the guest's token that came with an API request, or a new one; 422 for one we never gave out."""
    token = request.headers.get(TOKEN_HEADER, "")
    if token and not _TOKEN.fullmatch(token):
        abort(422, f"{TOKEN_HEADER} must be the token that the cart was answered with.")
    return token or new_token()


@api.get("")
@token_required(optional=True)
def show_cart() -> Response:
    """Answer the cart."""
    user, token = token_user_if_any(), guest_token()
    return _answer(user, token)


@api.post("/items")
@token_required(optional=True)
def add_item() -> Response:
    """Add `quantity` units (1 if left out) of `product`, an id or a slug."""
    user, token = token_user_if_any(), guest_token()
    fields = json_fields()
    slug = fields.name_or_id("product")
    quantity = fields.number("quantity", least=1, most=MOST, default=1)
    fields.check()

    add_to_cart(owner_of(user, token), find_product(slug), quantity)
    return _answer(user, token)


@api.put("/items/<slug>")
@token_required(optional=True)
def change_item(slug: str) -> Response:
    """Set the `quantity` of a product in the cart."""
    user, token = token_user_if_any(), guest_token()
    fields = json_fields()
    quantity = fields.number("quantity", least=0, most=MOST)
    fields.check()

    set_quantity(owner_of(user, token), find_product(slug), quantity)
    return _answer(user, token)


@api.delete("/items/<slug>")
@token_required(optional=True)
def remove_item(slug: str) -> Response:
    """Take a product out of the cart."""
    user, token = token_user_if_any(), guest_token()
    set_quantity(owner_of(user, token), find_product(slug), 0)
    return _answer(user, token)


def _changed(statement: Update) -> bool:
    result = prod.db.session.execute(statement)
    return isinstance(result, CursorResult) and result.rowcount > 0


def _answer(user: User | None, token: str) -> Response:
    items = cart_items(owner_of(user, token))
    cart: dict[str, Any] = {
        "items": [{"product": product_json(item.product), "quantity": item.quantity} for item in items],
        "total_cents": sum(item.total_cents for item in items),
    }
    response = jsonify(cart)
    if user is None:
        response.headers[TOKEN_HEADER] = token
    return response
