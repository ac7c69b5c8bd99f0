from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sample_app.conftest import MakeShopApp, StartShop
from tests.sample_app.shop import Browser, Shop

PAGES = (
    "/",
    "/products",
    "/products?q=mug&category=kitchen&page=1",
    "/products/1",
    "/cart",
    "/sign-in",
    "/sign-up",
)


@pytest.mark.parametrize("path", PAGES)
def test_page_is_shown(browser: Browser, path: str) -> None:
    """Every page answers a guest, without anything that a strict content security policy forbids."""
    answer = browser.get(path)

    assert answer.status == 200
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "style-src 'self'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", answer.text)


def test_browsing_sets_no_cookie(browser: Browser) -> None:
    """Who only looks around stays unknown, so that these pages can be cached."""
    for path in PAGES:
        browser.get(path)

    assert browser.cookie == ""


def test_whole_purchase_by_forms(browser: Browser) -> None:
    """A guest fills a cart, makes an account on the way, buys, and finds the order again."""
    assert browser.post("/cart/40", quantity=2).status == 302
    assert "is in your cart" in browser.get("/cart").text
    assert browser.get("/checkout").headers["Location"] == "/sign-in?then=checkout"
    browser.sign_up("Grace")
    page = browser.get("/checkout").text
    key = re.search(r'name="key" value="(\w+)"', page)
    assert key is not None

    bought = browser.post("/checkout", key=key[1], address="1 Harbour Road")
    again = browser.post("/checkout", key=key[1], address="1 Harbour Road")

    assert bought.status == 302
    assert again.headers["Location"] == bought.headers["Location"]
    assert "Thank you, Grace." in browser.get(bought.headers["Location"]).text
    assert "Your cart is empty" in browser.get("/cart").text
    assert browser.get("/orders").text.count("/orders/") == 1


def test_cart_lines_can_be_changed(browser: Browser) -> None:
    """The cart's own form sets quantities, zero removes."""
    browser.post("/cart/41", quantity=2)
    browser.post("/cart/41", quantity=5, set=1)
    assert 'value="5"' in browser.get("/cart").text

    browser.post("/cart/41", quantity=0, set=1)
    assert "Your cart is empty" in browser.get("/cart").text


@pytest.mark.parametrize("origin", ["https://evil.example", "null", None])
@pytest.mark.parametrize(
    "path", ["/cart/1", "/sign-in", "/sign-up", "/sign-out", "/checkout", "/admin/1/deliveries"]
)
def test_forms_of_other_sites_are_refused(browser: Browser, path: str, origin: str | None) -> None:
    """A form that another site submits, or that does not say where it comes from, is 403."""
    assert browser.post(path, origin=origin, quantity=1).status == 403


def test_browsers_word_on_the_site_counts_first(shop: Shop) -> None:
    """Sec-Fetch-Site decides where it is sent: cross-site and same-site are refused."""
    headers = {"Origin": shop.url, "Content-Type": "application/x-www-form-urlencoded"}

    statuses = {
        site: shop.request("POST", "/sign-out", b"", {**headers, "Sec-Fetch-Site": site}).status
        for site in ("same-origin", "cross-site", "same-site")
    }
    assert statuses == {"same-origin": 302, "cross-site": 403, "same-site": 403}


def test_pages_of_a_user_reach_nobody_else(shop: Shop, browser: Browser) -> None:
    """What a signed-in user is shown does not come out of the cache for others, nor the other way round."""
    browser.get("/products/42")
    browser.sign_up()
    browser.post("/cart/42", quantity=1)

    mine = browser.get("/products/42").text
    theirs = Browser(shop).get("/products/42").text

    assert "Sign out" in mine
    assert "Sign out" not in theirs


def test_form_tells_what_is_wrong(browser: Browser) -> None:
    """A refused form comes back with what was typed and a sentence at the field, but not the password."""
    answer = browser.post("/sign-up", name='Ada "L"', email="nowhere", password="short-pass")

    assert answer.status == 422
    assert "does not look like an e-mail address" in answer.text
    assert 'value="Ada &#34;L&#34;"' in answer.text
    wrong = browser.post("/sign-in", email="nobody@example.com", password="not-the-one")
    assert wrong.status == 401
    assert "do not belong together" in wrong.text
    assert "short-pass" not in answer.text
    assert "not-the-one" not in wrong.text


def test_sign_in_goes_to_own_pages_only(browser: Browser) -> None:
    """A crafted target leads home, not away."""
    email, password = "boss@example.com", "a-long-password"

    answer = browser.post("/sign-in", email=email, password=password, then="https://evil.example")

    assert answer.headers["Location"] == "/"


def test_sign_out_forgets(browser: Browser) -> None:
    """After signing out the visitor is a guest again."""
    browser.sign_up()
    browser.post("/sign-out")

    assert browser.get("/orders").status == 302


def test_unknown_page_wears_the_shops_dress(browser: Browser) -> None:
    """People get a page, programs a problem document."""
    page = browser.get("/no-such-page")
    api = browser.shop.get("/no-such-page", {"Accept": "application/json"})

    assert (page.status, api.status) == (404, 404)
    assert "Back to the shop" in page.text
    assert api.headers["Content-Type"] == "application/problem+json"


def test_too_many_is_told_on_a_page(shop: Shop, browser: Browser) -> None:
    """More than there is comes as a 409 page that names the product."""
    product = next(p for p in shop.api("GET", "/products").json["products"] if p["stock"] < 99)

    answer = browser.post(f"/cart/{product['slug']}", quantity=product["stock"] + 1)

    assert answer.status == 409
    assert f"Only {product['stock']} of {product['name']} are left." in answer.text


def test_unprepared_database_is_told(start_shop: StartShop, tmp_path: Path) -> None:
    """Before `flask prepare` pages and API answer 503 with the command; static files and health go on."""
    shop = start_shop(DATABASE_URL=f"sqlite:///{tmp_path / 'new.db'}")

    page = Browser(shop).get("/")
    api = shop.api("GET", "/products")

    assert (page.status, api.status) == (503, 503)
    assert "prepare" in page.text
    assert "flask --app sample_app prepare" in api.json["detail"]
    assert shop.get("/static/shop.css").status == 200
    assert shop.get("/health/live").status == 200


def test_crash_is_told_without_its_cause(shop_app: MakeShopApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash is a page in the shop's dress, drawn without the database, and says nothing of the inside."""
    client = shop_app().test_client()

    def crash() -> None:
        raise RuntimeError("top-secret")

    monkeypatch.setattr("sample_app.storefront.all_categories", crash)
    answer = client.get("/", headers={"Accept": "text/html"})

    assert answer.status_code == 500
    assert "Back to the shop" in answer.text
    assert "top-secret" not in answer.text
