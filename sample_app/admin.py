"""For those who run the shop: the inventory, by API and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, abort, flash, redirect, render_template, url_for
from sqlalchemy import func, select, update
from werkzeug.wrappers import Response

from .business import show_stock
from .catalogue import find_product, product_changed
from .extensions import prod
from .fields import Fields, form_fields, json_fields
from .models import Order, OrderItem, Product, User
from .tokens import token_required, token_user
from .visitor import visitor

api = Blueprint("inventory", __name__, url_prefix="/api/inventory")
pages = Blueprint("admin", __name__, url_prefix="/admin")


@dataclass(frozen=True)
class StockLine:
    """A product in the books: all that came in is on the shelf or sold."""

    product: Product
    sold: int

    @property
    def balanced(self) -> bool:
        """True while nothing was sold that was not there."""
        return self.product.stock >= 0 and self.product.stock + self.sold == self.product.received


def inventory() -> Sequence[StockLine]:
    """Return all products with what was sold of each, those that run out first; read at one moment."""
    sold = (
        select(OrderItem.product_id, func.sum(OrderItem.quantity).label("units")).group_by(OrderItem.product_id)
    ).subquery()
    units = func.coalesce(sold.c.units, 0)
    query = (
        select(Product, units).outerjoin(sold, sold.c.product_id == Product.id).order_by(Product.stock, Product.id)
    )
    # Fresh from the database: an object of this session might remember an older stock.
    rows = prod.db.session.execute(query, execution_options={"populate_existing": True})
    return [StockLine(product, int(count)) for product, count in rows]


def receive(slug: str, fields: Fields) -> Product:
    """Put `units` more of a product on the shelf."""
    units = fields.number("units", least=1, most=100_000)
    fields.check()
    product = find_product(slug)
    added = {"stock": Product.stock + units, "received": Product.received + units}
    prod.db.session.execute(update(Product).where(Product.id == product.id).values(**added))
    prod.db.session.commit()
    product_changed(product)
    show_stock(product.slug, product.stock)
    return product


def require_admin(user: User | None) -> None:
    """Answer 403 to everybody who does not run the shop."""
    if user is None or not user.is_admin:
        abort(403, "This is for those who run the shop.")


@api.get("")
@token_required()
def show_inventory() -> dict[str, Any]:
    """Answer stock, deliveries and sales of every product."""
    require_admin(token_user())
    return {"products": [_line_json(line) for line in inventory()]}


@api.post("/<slug>/deliveries")
@token_required()
def add_delivery(slug: str) -> dict[str, Any]:
    """Take in `units` more of a product."""
    require_admin(token_user())
    product = receive(slug, json_fields())
    return {"slug": product.slug, "stock": product.stock, "received": product.received}


@pages.get("")
def show_page() -> str | Response:
    """Show the inventory and the latest orders."""
    if visitor.user is None:
        return redirect(url_for("storefront.show_sign_in", then="admin"))
    require_admin(visitor.user)
    session = prod.db.session
    latest = session.scalars(select(Order).order_by(Order.id.desc()).limit(12)).all()
    count, value = session.execute(
        select(func.count(), func.coalesce(func.sum(Order.total_cents), 0)).select_from(Order)
    ).one()
    return render_template("admin.html", lines=inventory(), orders=latest, count=count, value=int(value))


@pages.post("/<slug>/deliveries")
def add_delivery_by_page(slug: str) -> Response:
    """Take in more of a product."""
    require_admin(visitor.user)
    product = receive(slug, form_fields())
    flash(f"{product.name}: {product.stock} units on the shelf now.")
    return redirect(url_for("admin.show_page"))


def _line_json(line: StockLine) -> dict[str, Any]:
    product = line.product
    return {
        "id": product.id,
        "slug": product.slug,
        "name": product.name,
        "stock": product.stock,
        "received": product.received,
        "sold": line.sold,
        "balanced": line.balanced,
    }
