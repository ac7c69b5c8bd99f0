from __future__ import annotations

import pytest

from tests.sample_app.shop import PASSWORD, Shop


def test_guest_has_a_cart_by_its_token(shop: Shop) -> None:
    """The first answer gives a token, and with it the cart is found again."""
    first = shop.api("POST", "/cart/items", {"product": 3, "quantity": 2})
    token = first.headers["X-Cart-Token"]

    again = shop.api("GET", "/cart", X_Cart_Token=token)

    assert first.status == 200
    assert [(item["product"]["id"], item["quantity"]) for item in again.json["items"]] == [(3, 2)]
    assert again.json["total_cents"] == 2 * again.json["items"][0]["product"]["price_cents"]


def test_carts_of_two_guests_are_apart(shop: Shop) -> None:
    """Without a token there is an empty cart, whatever others have in theirs."""
    shop.api("POST", "/cart/items", {"product": 3})

    assert shop.api("GET", "/cart").json["items"] == []


def test_cart_can_be_changed(shop: Shop) -> None:
    """Adding adds up, setting sets, removing removes."""
    token = shop.sign_up()["access_token"]
    shop.api("POST", "/cart/items", {"product": 3}, token)
    shop.api("POST", "/cart/items", {"product": 4}, token)
    added = shop.api("POST", "/cart/items", {"product": 3}, token)
    changed = shop.api("PUT", "/cart/items/3", {"quantity": 5}, token)
    removed = shop.api("DELETE", "/cart/items/3", token=token)

    lines = [[(i["product"]["id"], i["quantity"]) for i in one.json["items"]] for one in (added, changed, removed)]
    assert lines == [[(3, 2), (4, 1)], [(3, 5), (4, 1)], [(4, 1)]]


def test_guests_cart_comes_along_at_sign_in(shop: Shop) -> None:
    """What a guest put into the cart is added to what the user has there."""
    email = "moving@example.com"
    token = shop.sign_up(email)["access_token"]
    shop.api("POST", "/cart/items", {"product": 3}, token)
    guest = shop.api("POST", "/cart/items", {"product": 3, "quantity": 2}).headers["X-Cart-Token"]

    account = {"email": email, "password": PASSWORD}
    token = shop.api("POST", "/accounts/sign-in", account, X_Cart_Token=guest).json["access_token"]

    assert shop.api("GET", "/cart", token=token).json["items"][0]["quantity"] == 3
    assert shop.api("GET", "/cart", X_Cart_Token=guest).json["items"] == []


def test_more_than_there_is_cannot_be_added(shop: Shop) -> None:
    """Too many is 409, with the product's name and how many are left."""
    product = next(p for p in shop.api("GET", "/products").json["products"] if p["stock"] < 99)

    answer = shop.api("POST", "/cart/items", {"product": product["id"], "quantity": product["stock"] + 1})

    assert answer.status == 409
    assert answer.json["detail"] == f"Only {product['stock']} of {product['name']} are left."


def test_unknown_product_cannot_be_added(shop: Shop) -> None:
    """A product that does not exist is 404."""
    assert shop.api("POST", "/cart/items", {"product": 99999}).status == 404


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b'{"product": 1,}', b"nope"])
def test_malformed_json_is_400(shop: Shop, body: bytes) -> None:
    """A body that is no JSON is answered 400 by a problem document."""
    answer = shop.api("POST", "/cart/items", body)

    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"[]", b"null", b"3", b'"text"'])
def test_json_that_is_no_object_is_400(shop: Shop, body: bytes) -> None:
    """The answer says what a body looks like."""
    answer = shop.api("POST", "/cart/items", body)

    assert answer.status == 400
    assert "must be a JSON object" in answer.json["detail"]


def test_other_content_types_are_415(shop: Shop) -> None:
    """A form sent to the API is told so."""
    assert shop.api("POST", "/cart/items", b"product=1", Content_Type="text/plain").status == 415


def test_oversized_body_is_413(shop: Shop) -> None:
    """More than 64 KB is refused, whatever is in it."""
    answer = shop.api("POST", "/cart/items", b'{"product": "' + b"x" * 70_000 + b'"}')

    assert answer.status == 413
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("quantity", [0, -1, 100, 1.5, "many", True, None, [1], 10**30, "9" * 30])
def test_bad_quantity_is_told_by_field(shop: Shop, quantity: object) -> None:
    """Every quantity that is none is 422, with a sentence for the field."""
    answer = shop.api("POST", "/cart/items", {"product": 1, "quantity": quantity})

    assert answer.status == 422
    assert answer.json["errors"] == {"quantity": "This must be a whole number from 1 to 99."}


@pytest.mark.parametrize("product", [None, "", True, 1.5, [], "x" * 81, "a\x00b"])
def test_bad_product_is_told_by_field(shop: Shop, product: object) -> None:
    """What cannot be a product's name is 422."""
    answer = shop.api("POST", "/cart/items", {"product": product})

    assert answer.status == 422
    assert list(answer.json["errors"]) == ["product"]


def test_foreign_cart_token_is_refused(shop: Shop) -> None:
    """A token we never gave out, such as a user's owner name, opens no cart."""
    assert shop.api("GET", "/cart", X_Cart_Token="user:1").status == 422
