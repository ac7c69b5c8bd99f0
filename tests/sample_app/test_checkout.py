from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sample_app.conftest import StartShop
from tests.sample_app.shop import Shop, prepare
from tests.servers import Answer, free_port


def test_order_is_placed(shop: Shop) -> None:
    """Checkout answers the order, empties the cart, and takes the stock."""
    token = shop.buyer(product=10, quantity=2)
    before = shop.stock(10)

    answer = shop.api("POST", "/checkout", {"address": "1 Harbour Road"}, token)

    order = answer.json
    assert answer.status == 201
    assert [(item["product_id"], item["quantity"]) for item in order["items"]] == [(10, 2)]
    assert order["total_cents"] == 2 * order["items"][0]["price_cents"]
    assert shop.api("GET", "/cart", token=token).json["items"] == []
    after = shop.stock(10)
    assert (before["stock"] - after["stock"], after["sold"] - before["sold"]) == (2, 2)
    assert shop.api("GET", f"/orders/{order['id']}", token=token).json["address"] == "1 Harbour Road"


def test_orders_of_others_are_not_there(shop: Shop) -> None:
    """Somebody else's order is 404, and in nobody else's list."""
    mine, theirs = shop.buyer(product=11), shop.buyer(product=11)
    order = shop.api("POST", "/checkout", token=mine).json["id"]

    assert shop.api("GET", f"/orders/{order}", token=theirs).status == 404
    assert shop.api("GET", "/orders", token=theirs).json["orders"] == []
    assert [one["id"] for one in shop.api("GET", "/orders", token=mine).json["orders"]] == [order]


def test_empty_cart_cannot_be_bought(shop: Shop) -> None:
    """An empty cart is 409, in a sentence."""
    answer = shop.api("POST", "/checkout", {}, shop.sign_up()["access_token"])

    assert answer.status == 409
    assert answer.json["detail"] == "Your cart is empty; put something into it first."


def test_checkout_needs_a_token(shop: Shop) -> None:
    """Nobody buys without an account."""
    assert shop.api("POST", "/checkout", {}).status == 401


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), ({"address": 5}, 422), ({"address": "x" * 301}, 422)])
def test_bad_checkout_changes_nothing(shop: Shop, body: object, status: int) -> None:
    """A refused checkout leaves the cart as it was."""
    token = shop.buyer(product=12)

    assert shop.api("POST", "/checkout", body, token).status == status
    assert len(shop.api("GET", "/cart", token=token).json["items"]) == 1


def test_same_key_is_one_order(shop: Shop) -> None:
    """Sent again with its key, a checkout answers the same order with 200, and buys nothing."""
    token = shop.buyer(product=13)
    first = shop.api("POST", "/checkout", token=token, Idempotency_Key="once")
    shop.api("POST", "/cart/items", {"product": 13}, token)

    again = shop.api("POST", "/checkout", token=token, Idempotency_Key="once")

    assert (first.status, again.status) == (201, 200)
    assert again.json["id"] == first.json["id"]
    assert len(shop.api("GET", "/cart", token=token).json["items"]) == 1


def test_same_key_finds_its_order_when_nothing_is_left(shop: Shop) -> None:
    """A repeated checkout is answered with its order even if it could not be bought now."""
    shelf = shop.api("GET", "/products?category=bath").json["products"]
    product = next(one for one in shelf if 8 <= one["stock"] <= 80)
    token, other = shop.buyer(product["id"]), shop.buyer(product["id"])
    order = shop.api("POST", "/checkout", token=token, Idempotency_Key="early").json["id"]
    shop.api("POST", "/cart/items", {"product": product["id"], "quantity": product["stock"] - 1}, token)
    assert shop.api("POST", "/checkout", token=other).status == 201

    again = shop.api("POST", "/checkout", token=token, Idempotency_Key="early")

    assert (again.status, again.json["id"]) == (200, order)


def test_key_belongs_to_its_user(shop: Shop) -> None:
    """Two users may come up with the same key."""
    orders = [
        shop.api("POST", "/checkout", token=shop.buyer(product=14), Idempotency_Key="shared").json["id"]
        for _ in range(2)
    ]

    assert orders[0] != orders[1]


def test_double_click_is_one_order(shop: Shop) -> None:
    """Ten checkouts at once with one key are one order, and every answer shows it."""
    token = shop.buyer(product=15)

    answers = _at_once(10, lambda _: shop.api("POST", "/checkout", token=token, Idempotency_Key="click"))

    assert Counter(answer.status for answer in answers) == {201: 1, 200: 9}
    assert len({answer.json["id"] for answer in answers}) == 1


def test_cart_is_bought_once_without_a_key(shop: Shop) -> None:
    """Ten checkouts of one cart at once are one order; the others find the cart empty."""
    token = shop.buyer(product=16)

    answers = _at_once(10, lambda _: shop.api("POST", "/checkout", token=token))

    assert Counter(answer.status for answer in answers) == {201: 1, 409: 9}


def test_not_enough_names_the_product(shop: Shop) -> None:
    """With one product short nothing is bought: 409 names it and what is left, and the cart stays."""
    first, second = shop.buyer(product=17, quantity=3), shop.buyer(product=17)
    shop.api("POST", "/cart/items", {"product": 18}, first)
    spare = shop.stock(17)["stock"]
    shop.api("PUT", "/cart/items/17", {"quantity": spare - 1}, second)
    assert shop.api("POST", "/checkout", token=second).status == 201
    before = shop.stock(18)

    answer = shop.api("POST", "/checkout", token=first)

    name = shop.api("GET", "/products/17").json["name"]
    assert answer.status == 409
    assert answer.json["detail"] == f"Only 1 of {name} are left; your cart has 3."
    assert len(shop.api("GET", "/cart", token=first).json["items"]) == 2
    assert shop.stock(18) == before


def test_last_items_are_not_oversold(start_shop: StartShop, redis_url: str) -> None:
    """Of twenty buyers at once who want the last five, exactly five get one (SQLite)."""
    _sell_the_last_five(start_shop(REDIS_URL=redis_url))


def test_last_items_are_not_oversold_on_postgresql(
    start_shop: StartShop, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    """Of twenty buyers at once who want the last five, exactly five get one (PostgreSQL)."""
    prepare(postgres_url, tmp_path)
    _sell_the_last_five(start_shop(REDIS_URL=redis_url, DATABASE_URL=postgres_url))


def test_buyers_of_the_same_things_do_not_block_each_other_for_ever(
    start_shop: StartShop, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    """Carts filled in opposite orders are bought at once without a deadlock (PostgreSQL)."""
    prepare(postgres_url, tmp_path)
    shop = start_shop(REDIS_URL=redis_url, DATABASE_URL=postgres_url)
    buyers = []
    for number in range(12):
        first, second = (20, 21) if number % 2 else (21, 20)
        buyers.append(shop.buyer(product=first))
        shop.api("POST", "/cart/items", {"product": second}, buyers[-1])

    answers = _at_once(12, lambda number: shop.api("POST", "/checkout", token=buyers[number]))

    assert {answer.status for answer in answers} <= {201, 409}
    assert shop.stock(20)["balanced"]
    assert shop.stock(21)["balanced"]


def test_order_stands_without_redis(start_shop: StartShop) -> None:
    """With Redis away an order is placed, and its mail waits in the database."""
    shop = start_shop(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")

    answer = shop.api("POST", "/checkout", token=shop.buyer())

    assert answer.status == 201
    assert answer.json["mail_sent"] is False


def test_orders_are_counted(start_shop: StartShop, redis_url: str) -> None:
    """Orders, their value, payments and what is left show in the metrics, over all workers."""
    shop = start_shop(REDIS_URL=redis_url)
    buyer = shop.buyer(product=25, quantity=2)
    order = shop.api("POST", "/checkout", token=buyer).json
    assert shop.api("POST", "/checkout", token=buyer).status == 409
    left = shop.stock(25)

    metrics = shop.get("/metrics").text

    assert "shop_orders_total 1.0" in metrics
    assert 'shop_payments_total{result="accepted"} 1.0' in metrics
    assert 'shop_payments_total{result="refused"} 1.0' in metrics
    assert f"shop_order_value_euros_sum {order['total_cents'] / 100}" in metrics
    assert f'shop_stock_units{{product="{left["slug"]}"}} {left["stock"]}.0' in metrics


def _sell_the_last_five(shop: Shop) -> None:
    product = 8
    buyers = [shop.buyer(product) for _ in range(20)]
    stock = shop.stock(product)["stock"]
    while stock > 5:
        units = min(99, stock - 5)
        assert shop.api("POST", "/checkout", token=shop.buyer(product, units)).status == 201
        stock -= units

    answers = _at_once(20, lambda number: shop.api("POST", "/checkout", token=buyers[number]))

    assert Counter(answer.status for answer in answers) == {201: 5, 409: 15}
    books = shop.stock(product)
    assert books["stock"] == 0
    assert books["balanced"]


def _at_once(count: int, ask: Callable[[int], Answer]) -> list[Answer]:
    """Ask from so many threads at the same moment."""
    answers: list[Answer] = []
    ready = threading.Barrier(count)

    def one(number: int) -> None:
        ready.wait(10)
        answers.append(ask(number))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == count
    return answers
