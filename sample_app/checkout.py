"""Checkout: the order, its stock and its cart change in one transaction, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, abort, request
from sqlalchemy import Row, delete, select, update
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import HTTPException

from .business import count_order, count_refusal, show_stock
from .delivery import require_delivery
from .extensions import prod
from .fields import Fields, json_fields
from .jobs import send_confirmation
from .models import CartItem, Order, OrderItem, Product, User
from .tokens import token_required, token_user

api = Blueprint("orders", __name__, url_prefix="/api")


def place_order(user: User, key: str | None, fields: Fields) -> tuple[Order, bool]:
    """Buy what is in the user's cart; return the order, and False when *key* has bought it before.

    409 when the cart is empty, or when there is not enough of something, 422 and 502 as the carrier says: then
    nothing has happened.
    """
    address = fields.text("address", most=300)
    fields.check()
    try:
        return _place(user, key, address)
    except HTTPException:
        count_refusal()
        raise


def _place(user: User, key: str | None, address: str) -> tuple[Order, bool]:
    require_delivery(user, address)

    session, user_id = prod.db.session, user.id
    try:
        bought = _buy(user_id, key, address)
        session.commit()
    except IntegrityError:  # the same key, sent twice at once with a cart filled again in between
        session.rollback()
        bought = None
    if bought is None:
        return _bought_before(user_id, key), False

    count_order(bought.order.total_cents)
    for slug, left in bought.left.items():
        show_stock(slug, left)
    return bought.order, True


def find_orders(user: User) -> Sequence[Order]:
    """Return the user's orders, the newest first; at most 100."""
    query = select(Order).where(Order.user_id == user.id).order_by(Order.id.desc()).limit(100)
    return prod.db.session.scalars(query).all()


def find_order(user: User, order_id: int) -> Order:
    """Return an order of this user; 404 for anybody else's, as if there were none."""
    order = prod.db.session.scalar(select(Order).where(Order.id == order_id, Order.user_id == user.id))
    if order is None:
        abort(404, f"You have no order {order_id}.")
    return order


@dataclass(frozen=True)
class _Bought:
    order: Order
    left: dict[str, int]


def _buy(user_id: int, key: str | None, address: str) -> _Bought | None:
    """Change everything, uncommitted; None when there is an order for this key already.

    The cart is emptied first: of two checkouts at once, one gets the lines and the other waits for it, then
    finds none. As a write that comes first it also makes SQLite take its lock at once, with patience.
    """
    session = prod.db.session
    session.rollback()  # what was read so far belongs to an older transaction
    if _find_by_key(user_id, key) is not None:
        return None
    mine = CartItem.owner == f"user:{user_id}"
    lines = session.execute(delete(CartItem).where(mine).returning(CartItem.product_id, CartItem.quantity)).all()
    if not lines:
        session.rollback()
        return None

    order = Order(user_id=user_id, idempotency_key=key, address=address, total_cents=0)
    left: dict[str, int] = {}
    for product_id, quantity in sorted(
        lines
    ):  # in one order for all, so that two buyers never wait for each other
        taken = _take_stock(product_id, quantity)
        left[taken.slug] = taken.stock
        order.items.append(
            OrderItem(product_id=product_id, name=taken.name, price_cents=taken.price_cents, quantity=quantity)
        )
    order.total_cents = sum(item.price_cents * item.quantity for item in order.items)
    session.add(order)
    session.flush()  # gives it its id
    # In this transaction, by the outbox: no order without its mail, and no mail without its order.
    send_confirmation.dispatch(order_id=order.id)
    return _Bought(order, left)


def _take_stock(product_id: int, quantity: int) -> Row[str, int, str, int]:
    """Take *quantity* units off the shelf; 409 names the product and what is left, and undoes the transaction."""
    session = prod.db.session
    taken = session.execute(
        update(Product)
        .where(Product.id == product_id, Product.stock >= quantity)
        .values(stock=Product.stock - quantity)
        .returning(Product.name, Product.price_cents, Product.slug, Product.stock)
    ).one_or_none()
    if taken is None:
        session.rollback()
        product = session.get_one(Product, product_id)
        abort(409, f"Only {product.stock} of {product.name} are left; your cart has {quantity}.")
    return taken


def _find_by_key(user_id: int, key: str | None) -> Order | None:
    if key is None:
        return None
    query = select(Order).where(Order.user_id == user_id, Order.idempotency_key == key)
    return prod.db.session.scalar(query)


def _bought_before(user_id: int, key: str | None) -> Order:
    order = _find_by_key(user_id, key)
    if order is None:
        abort(409, "Your cart is empty; put something into it first.")
    return order


@api.post("/checkout")
@prod.limit("checkout")
@token_required()
def check_out() -> tuple[dict[str, Any], int]:
    """Buy the cart. With an Idempotency-Key, sending it again answers the same order, with status 200."""
    key = request.headers.get("Idempotency-Key", "").strip() or None
    if key is not None and len(key) > 64:
        abort(422, "Idempotency-Key must have at most 64 characters.")
    fields = json_fields() if request.content_length else Fields({})
    order, new = place_order(token_user(), key, fields)
    return order_json(order), 201 if new else 200


@api.get("/orders")
@token_required()
def list_orders() -> dict[str, Any]:
    """Answer the caller's own orders, the newest first."""
    return {"orders": [order_json(order) for order in find_orders(token_user())]}


@api.get("/orders/<int:order_id>")
@token_required()
def show_order(order_id: int) -> dict[str, Any]:
    """Answer one of the caller's own orders."""
    return order_json(find_order(token_user(), order_id))


def order_json(order: Order) -> dict[str, Any]:
    """Return what the API tells of an order."""
    items = [
        {"product_id": i.product_id, "name": i.name, "price_cents": i.price_cents, "quantity": i.quantity}
        for i in order.items
    ]
    return {
        "id": order.id,
        "created_at": order.created_at.isoformat(),
        "address": order.address,
        "items": items,
        "total_cents": order.total_cents,
        "mail_sent": order.mail_sent_at is not None,
    }
