"""What there is to buy: search, paging, detail.

The answers are the same for everybody, so they are public: most are given before Flask is entered. What changes a
product invalidates its tags; see admin.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, abort
from sqlalchemy import ColumnElement, func, or_, select

from .extensions import prod
from .fields import Fields, query_fields
from .models import Category, Product

api = Blueprint("catalogue", __name__, url_prefix="/api")

PAGE_SIZE = 24


@dataclass(frozen=True)
class Page:
    """One page of products, and what it was asked for."""

    items: Sequence[Product]
    total: int
    number: int
    q: str = ""
    category: str = ""

    @property
    def count(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.total // PAGE_SIZE))


def find_products(fields: Fields) -> Page:
    """Return the page that a query string asks for by `page`, `q` and `category`; Invalid for nonsense."""
    return search(*what_is_asked(fields))


def what_is_asked(fields: Fields) -> tuple[int, str, str]:
    """Return number, words and shelf of a page; Invalid for nonsense."""
    number = fields.number("page", least=1, most=10_000, default=1)
    q = fields.text("q", most=100)
    category = fields.text("category", most=40)
    fields.check()
    return number, q, category


def search(number: int, q: str, category: str) -> Page:
    """Return one page of what matches."""
    matches = _matches(q, category)
    query = select(Product).where(*matches).order_by(Product.name, Product.id)
    items = prod.db.session.scalars(query.limit(PAGE_SIZE).offset((number - 1) * PAGE_SIZE)).all()
    total = prod.db.session.scalar(select(func.count()).select_from(Product).where(*matches)) or 0
    return Page(items, total, number, q, category)


def find_product(slug: str) -> Product:
    """Return the product with this slug, or with this id; 404 when there is none."""
    is_id = slug.isascii() and slug.isdecimal() and len(slug) < 10
    same = Product.id == int(slug) if is_id else Product.slug == slug
    product = prod.db.session.scalar(select(Product).where(same))
    if product is None:
        abort(404, f"There is no product {slug[:80]!r}.")
    return product


def all_categories() -> Sequence[Any]:
    """Return slug and name of the shelves by name; asked of the database again when one of them has changed."""
    return prod.cache.query(select(Category.slug, Category.name).order_by(Category.name), ttl="1h")


@prod.cache.warm(every="30m")
def shelves() -> None:
    """Have the shelves ready before the first visitor asks, and again before they end."""
    all_categories()


def _matches(q: str, category: str) -> list[ColumnElement[bool]]:
    matches: list[ColumnElement[bool]] = []
    for word in q.lower().split()[:5]:
        name, description = func.lower(Product.name), func.lower(Product.description)
        matches.append(or_(name.contains(word, autoescape=True), description.contains(word, autoescape=True)))
    if category:
        shelf = select(Category.id).where(Category.slug == category).scalar_subquery()
        matches.append(Product.category_id == shelf)
    return matches


@api.get("/products")
@prod.cache.cached(ttl="1m", public=True, query=["page", "q", "category"], tags=["products"])
def list_products() -> dict[str, Any]:
    """Answer one page of products; stock is as of the last minute, checkout knows better."""
    return products_json(*what_is_asked(query_fields()))


@api.get("/products/<slug>")
@prod.cache.cached(ttl="1m", public=True, query=(), tags=["product:{slug}"])
def show_product(slug: str) -> dict[str, Any]:
    """Answer one product in full."""
    return product_data(slug)


@api.get("/categories")
@prod.cache.cached(ttl="1m", public=True, query=(), tags=["table:categories"])
def list_categories() -> dict[str, Any]:
    """Answer the shelves."""
    return {"categories": [{"slug": one.slug, "name": one.name} for one in all_categories()]}


# Who has signed in is given no page out of the cache, since pages may be personal; what they are made of is not.


@prod.cache.cached(ttl="1m", tags=["products"])
def products_json(number: int, q: str, category: str) -> dict[str, Any]:
    """Return what the API says about one page of a search."""
    page = search(number, q, category)
    return {
        "products": [product_json(product) for product in page.items],
        "page": page.number,
        "pages": page.count,
        "total": page.total,
    }


@prod.cache.cached(ttl="1m", tags=["product:{slug}"])
def product_data(slug: str) -> dict[str, Any]:
    """Return what the API says about one product; 404 when there is none."""
    product = find_product(slug)
    return {**product_json(product), "description": product.description}


def product_changed(product: Product) -> None:
    """Forget every page that shows a product; its own is found by its slug and by its id."""
    prod.cache.invalidate("products", f"product:{product.slug}", f"product:{product.id}")


def product_json(product: Product) -> dict[str, Any]:
    """Return what a list shows of a product."""
    return {
        "id": product.id,
        "slug": product.slug,
        "name": product.name,
        "category": product.category.slug,
        "price_cents": product.price_cents,
        "stock": product.stock,
    }
