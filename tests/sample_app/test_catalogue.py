from __future__ import annotations

from tests.sample_app.shop import Shop


def test_product_list_is_paged(shop: Shop) -> None:
    """Pages hold 24 products each, and together all 200, once."""
    pages = [shop.api("GET", f"/products?page={number}").json for number in range(1, 10)]

    ids = [product["id"] for page in pages for product in page["products"]]
    assert len(ids) == len(set(ids)) == pages[0]["total"] == 200
    assert [len(page["products"]) for page in pages] == [24] * 8 + [8]
    assert pages[0]["pages"] == 9


def test_page_beyond_the_end_is_empty(shop: Shop) -> None:
    """A page that does not exist is an empty list, not an error."""
    assert shop.api("GET", "/products?page=999").json["products"] == []


def test_search_finds_words_in_any_case(shop: Shop) -> None:
    """Every word must occur, in the name or the description."""
    found = shop.api("GET", "/products?q=MUG+oslo").json["products"]

    assert [product["name"] for product in found] == ["Oslo Mug, Rust"]


def test_search_takes_wildcards_literally(shop: Shop) -> None:
    """A percent sign finds percent signs, of which there are none."""
    assert shop.api("GET", "/products?q=%25").json["total"] == 0


def test_shelf_filters(shop: Shop) -> None:
    """A category shows its own 25 products."""
    page = shop.api("GET", "/products?category=kitchen").json

    assert page["total"] == 25
    assert {product["category"] for product in page["products"]} == {"kitchen"}


def test_nonsense_in_the_query_is_told_by_field(shop: Shop) -> None:
    """A page that is no number is 422, with a sentence for the field."""
    answer = shop.api("GET", "/products?page=abc")

    assert answer.status == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["errors"] == {"page": "This must be a whole number from 1 to 10000."}


def test_product_is_found_by_id_and_by_slug(shop: Shop) -> None:
    """Both names of a product lead to the same answer."""
    by_id = shop.api("GET", "/products/1").json

    assert shop.api("GET", f"/products/{by_id['slug']}").json == by_id
    assert isinstance(by_id["price_cents"], int)


def test_unknown_product_is_404(shop: Shop) -> None:
    """A product that does not exist is a problem document that names it."""
    answer = shop.api("GET", "/products/no-such-thing")

    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["detail"] == "There is no product 'no-such-thing'."


def test_categories_are_listed(shop: Shop) -> None:
    """There are eight shelves."""
    assert len(shop.api("GET", "/categories").json["categories"]) == 8


def test_delivery_is_seen_at_once(shop: Shop) -> None:
    """Pages are kept, by id, by slug and in lists, until a delivery changes the product."""
    slug = shop.api("GET", "/products/40").json["slug"]
    paths = ("/products/40", f"/products/{slug}", f"/products?q={slug.replace('-', '+')}")
    for _ in range(3):
        before = [shop.api("GET", path) for path in paths]
    assert all("hit" in answer.headers["Cache-Status"] for answer in before)
    stock = before[0].json["stock"]

    shop.api("POST", f"/inventory/{slug}/deliveries", {"units": 9}, shop.admin())

    after = [shop.api("GET", path).json for path in paths]
    assert [after[0]["stock"], after[1]["stock"]] == [stock + 9] * 2
    assert stock + 9 in [product["stock"] for product in after[2]["products"]]
