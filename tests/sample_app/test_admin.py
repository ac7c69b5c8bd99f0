from __future__ import annotations

from tests.sample_app.conftest import MakeShopApp
from tests.sample_app.shop import PASSWORD, Browser, Shop


def test_inventory_needs_an_admin(shop: Shop) -> None:
    """Nobody without a token, and no customer, sees the books or changes them."""
    token = shop.sign_up()["access_token"]

    statuses = [
        shop.api("GET", "/inventory").status,
        shop.api("GET", "/inventory", token=token).status,
        shop.api("POST", "/inventory/1/deliveries", {"units": 5}).status,
        shop.api("POST", "/inventory/1/deliveries", {"units": 5}, token).status,
    ]
    assert statuses == [401, 403, 401, 403]


def test_delivery_is_taken_in(shop: Shop) -> None:
    """A delivery raises stock and what was received; the books stay balanced."""
    before = shop.stock(30)

    answer = shop.api("POST", "/inventory/30/deliveries", {"units": 7}, shop.admin())

    after = shop.stock(30)
    assert answer.status == 200
    assert (after["stock"] - before["stock"], after["received"] - before["received"]) == (7, 7)
    assert after["balanced"]


def test_delivery_of_nothing_is_told(shop: Shop) -> None:
    """Zero, fewer, or no number of units is 422; an unknown product 404."""
    admin = shop.admin()

    for units in (0, -5, "some", None, 100_001):
        assert shop.api("POST", "/inventory/1/deliveries", {"units": units}, admin).status == 422
    assert shop.api("POST", "/inventory/nothing/deliveries", {"units": 1}, admin).status == 404


def test_admin_page_sends_guests_to_sign_in(browser: Browser) -> None:
    """A guest is asked to sign in, and comes back afterwards."""
    answer = browser.get("/admin")
    assert (answer.status, answer.headers["Location"]) == (302, "/sign-in?then=admin")

    signed = browser.post("/sign-in", email="boss@example.com", password=PASSWORD, then="admin")
    assert (signed.status, signed.headers["Location"]) == (302, "/admin")
    assert "Behind the counter" in browser.get("/admin").text


def test_admin_page_refuses_customers(browser: Browser) -> None:
    """A customer gets 403, for the page and for its forms."""
    browser.sign_up()

    assert browser.get("/admin").status == 403
    assert browser.post("/admin/1/deliveries", units=5).status == 403


def test_admin_page_takes_deliveries(shop: Shop, browser: Browser) -> None:
    """The form on the page does what the API does."""
    browser.post("/sign-in", email="boss@example.com", password=PASSWORD)
    before = shop.stock(31)["stock"]

    assert browser.post("/admin/31/deliveries", units=3).status == 302
    assert shop.stock(31)["stock"] == before + 3


def test_create_admin_tells_what_is_wrong(shop_app: MakeShopApp) -> None:
    """A bad address, a short password and a taken address end with 1 and a sentence."""
    runner = shop_app().test_cli_runner()

    bad = runner.invoke(args=["create-admin", "nobody", "--password", "short"])
    taken = runner.invoke(args=["create-admin", "boss@example.com", "--password", PASSWORD])

    assert (bad.exit_code, taken.exit_code) == (1, 1)
    assert "email: This does not look like" in bad.output
    assert "password: Please use 10 to 200" in bad.output
    assert "There is an account" in taken.output
