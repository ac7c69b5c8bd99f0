"""A real browser in the shop: what the strict content security policy would break, breaks here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import chromium, debian
from tests.chromium import Chromium

from .shop import PASSWORD, Shop, copy_of

pytestmark = pytest.mark.timeout(400)  # the first run on a machine may have to bring the browser


@pytest.fixture(scope="module")
def program(pytestconfig: pytest.Config) -> str:
    """Give the path of the browser, unpacked once."""
    try:
        return chromium.provide(debian.kept(pytestconfig))
    except debian.Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture
def page(program: str) -> Iterator[Chromium]:
    """Give a browser that was never anywhere."""
    with Chromium(program) as running:
        yield running


@pytest.fixture(scope="module")
def shop(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Run a shop for this module alone: something is bought in it."""
    with Shop(copy_of(prepared, tmp_path_factory.mktemp("walked"))) as running:
        yield running


def test_visitor_walks_the_shop(page: Chromium, shop: Shop) -> None:
    """From the home page to an order, every page is shown whole, and the browser has nothing to complain about."""
    page.visit(f"{shop.url}/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    page.click(".hero-text a")
    assert page.path == "/products"

    page.type("input[name=q]", "mug")
    page.click("form.search button")
    page.click("a.card")
    page.click("form.buy button")
    assert page.path == "/cart"
    page.run("document.querySelector('form[data-auto] input[type=number]').value = 2")
    page.leave_by("document.querySelector('form[data-auto]').dispatchEvent(new Event('change'))")
    assert page.run("document.querySelector('form[data-auto] button').hidden"), "shop.js runs"
    assert page.run("document.querySelector('form[data-auto] input[type=number]').value") == "2"

    page.click("aside a.button")
    assert page.path == "/sign-in"
    page.click("main a[href^='/sign-up']")
    page.type("#name", "Ada")
    page.type("#email", "ada@example.com")
    page.type("#password", PASSWORD)
    page.click("main form button")
    assert page.path == "/checkout"
    page.type("#address", "1 Harbour Road")
    page.click("form[data-once] button")
    assert "Thank you, Ada." in page.text
    page.visit(f"{shop.url}/orders")

    assert page.complaints == []
    assert {kind for kind, _ in page.loaded} == {"Document", "Stylesheet", "Script", "Other"}


def test_owner_looks_behind_the_counter(page: Chromium, shop: Shop) -> None:
    """The administrator's page, with a delivery taken in by its form, is shown without a complaint."""
    page.visit(f"{shop.url}/sign-in")
    page.type("#email", "boss@example.com")
    page.type("#password", PASSWORD)
    page.click("main form button")
    page.click("nav a[href='/admin']")
    page.click("table form button")

    assert "Behind the counter" in page.text
    assert page.complaints == []


def test_forbidden_script_is_seen(page: Chromium, shop: Shop) -> None:
    """An inline script does not run, and the browser's complaint reaches the test: the two above can fail."""
    page.visit(f"{shop.url}/")
    page.run("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))")
    page.run("document.body.append(Object.assign(document.createElement('img'), {src: '/no-such-picture'}))")
    page.settle()

    assert page.run("document.title") != "1"
    assert any("script-src 'self'" in complaint for complaint in page.complaints)
    assert any("/no-such-picture: 404" in complaint for complaint in page.complaints)
