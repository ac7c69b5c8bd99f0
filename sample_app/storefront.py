"""The shop as people see it: pages made by the server that need no script."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from flask import Blueprint, flash, redirect, render_template, request, url_for
from sqlalchemy import func, select
from werkzeug.exceptions import Unauthorized
from werkzeug.wrappers import Response

from . import accounts
from .cart import MOST, add_to_cart, cart_items, set_quantity
from .catalogue import all_categories, find_product, find_products
from .checkout import find_order, find_orders, place_order
from .extensions import prod
from .fields import Fields, Invalid, form_fields, query_fields
from .models import Product, User
from .visitor import visitor

pages = Blueprint("storefront", __name__)

_AFTER_SIGN_IN = {
    "checkout": "storefront.show_checkout",
    "orders": "storefront.show_orders",
    "admin": "admin.show_page",
}
"""Where a form may send somebody who has signed in: names of our own pages, never an address."""


@pages.get("/")
@prod.cache.cached(ttl="1m", query=(), tags=["products", "table:categories"])
def home() -> str:
    """Show the shelves and a few things from each."""
    first_of_shelf = select(func.min(Product.id)).group_by(Product.category_id)
    picks = prod.db.session.scalars(
        select(Product).where(Product.id.in_(first_of_shelf)).order_by(Product.id)
    ).all()
    return render_template("home.html", categories=all_categories(), picks=picks)


@pages.get("/products")
@prod.cache.cached(ttl="1m", query=["page", "q", "category"], tags=["products"])
def products() -> str:
    """Show one page of a search or a shelf."""
    page = find_products(query_fields())
    return render_template("products.html", page=page, categories=all_categories())


@pages.get("/products/<slug>")
@prod.cache.cached(ttl="1m", query=(), tags=["products", "product:{slug}"])
def product(slug: str) -> str:
    """Show one product, and others of its shelf."""
    found = find_product(slug)
    shelf = select(Product).where(Product.category_id == found.category_id, Product.id != found.id)
    others = prod.db.session.scalars(
        shelf.order_by((Product.motif == found.motif).desc(), Product.id).limit(4)
    ).all()
    return render_template("product.html", product=found, others=others, most=min(found.stock, 10))


@pages.get("/cart")
def show_cart() -> str:
    """Show the cart."""
    items = cart_items(visitor.owner)
    return render_template("cart.html", items=items, total=sum(item.total_cents for item in items), most=MOST)


@pages.post("/cart/<slug>")
def change_cart(slug: str) -> Response:
    """Add to the cart, or with `set` make a line that many units."""
    fields = form_fields()
    quantity = fields.number("quantity", least=0, most=MOST, default=1)
    fields.check()
    found = find_product(slug)
    if "set" in request.form:
        set_quantity(visitor.owner_with_cart(), found, quantity)
    else:
        add_to_cart(visitor.owner_with_cart(), found, quantity)
        flash(f"{found.name} is in your cart.")
    return redirect(url_for("storefront.show_cart"))


@pages.get("/checkout")
def show_checkout() -> str | Response:
    """Show what is about to be bought."""
    return _checkout_page({}) if visitor.user else _to_sign_in("checkout")


@pages.post("/checkout")
@prod.limit("checkout")
def check_out() -> str | Response | tuple[str, int]:
    """Buy the cart; the form's key makes a double click one order."""
    if visitor.user is None:
        return _to_sign_in("checkout")
    fields = form_fields()
    try:
        key = fields.text("key", least=1, most=64)
        order, _ = place_order(visitor.user, key, fields)
    except Invalid as error:
        return _checkout_page(error.errors), 422
    return redirect(url_for("storefront.show_order", order_id=order.id, thanks=1))


@pages.get("/orders")
def show_orders() -> str | Response:
    """Show the visitor's own orders."""
    if visitor.user is None:
        return _to_sign_in("orders")
    return render_template("orders.html", orders=find_orders(visitor.user))


@pages.get("/orders/<int:order_id>")
def show_order(order_id: int) -> str | Response:
    """Show one of the visitor's own orders."""
    if visitor.user is None:
        return _to_sign_in("orders")
    return render_template("order.html", order=find_order(visitor.user, order_id), thanks="thanks" in request.args)


@pages.get("/sign-in")
def show_sign_in() -> str:
    """Show the sign-in form."""
    return _account_form("sign_in.html", {})


@pages.post("/sign-in")
@prod.limit("auth")
def sign_in() -> Response | tuple[str, int]:
    """Sign in, then go where the visitor was about to go."""
    return _enter("sign_in.html", accounts.sign_in)


@pages.get("/sign-up")
def show_sign_up() -> str:
    """Show the sign-up form."""
    return _account_form("sign_up.html", {})


@pages.post("/sign-up")
@prod.limit("auth")
def sign_up() -> Response | tuple[str, int]:
    """Make an account and sign in."""
    return _enter("sign_up.html", accounts.sign_up)


@pages.post("/sign-out")
def sign_out() -> Response:
    """Forget the visitor."""
    visitor.sign_out()
    return redirect(url_for("storefront.home"))


def _enter(template: str, account: Callable[[Fields], User]) -> Response | tuple[str, int]:
    try:
        visitor.sign_in(account(form_fields()))
    except Invalid as error:
        return _account_form(template, error.errors), 422
    except Unauthorized as error:
        return _account_form(template, {"password": error.description or ""}), 401
    return redirect(url_for(_AFTER_SIGN_IN.get(request.form.get("then", ""), "storefront.home")))


def _account_form(template: str, errors: Mapping[str, str]) -> str:
    return render_template(template, errors=errors, then=request.values.get("then", ""))


def _checkout_page(errors: Mapping[str, str]) -> str:
    items = cart_items(visitor.owner)
    total = sum(item.total_cents for item in items)
    return render_template("checkout.html", items=items, total=total, errors=errors, key=secrets.token_hex(16))


def _to_sign_in(then: str) -> Response:
    return redirect(url_for("storefront.show_sign_in", then=then))
