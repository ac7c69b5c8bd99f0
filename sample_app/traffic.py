"""Bounded, realistic traffic against a running shop: `python -m sample_app.traffic --buyers 20 --seconds 30`.

Each buyer is a thread with one connection kept alive: looks around, searches, signs up and in, fills a cart, buys.
Some products are asked for far more often than others (Zipf), as in every shop. Prints what was seen; exit code 1
for any answer from 500 up, a connection that broke, a unit sold that was not there, or a mail that did not go out.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import secrets
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any
from urllib.parse import quote_plus, urlsplit

from .seed import DEMO_ADMIN, DEMO_PASSWORD

WORDS = ("mug", "lamp", "oslo", "moss", "book", "radio", "towel", "tea", "garden", "rust", "bag", "zebra")
SIGN_INS = 3
"""A buyer signs in again after so many orders: the access token of a phone that slept has expired."""

MOST_PER_BUYER = 5000
"""Requests; a bound beside the clock, should the shop answer everything at once."""


@dataclass
class Seen:
    """What all buyers saw; counted under one lock, since threads share it."""

    statuses: Counter[int] = field(default_factory=Counter)
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    broken: Counter[str] = field(default_factory=Counter)
    orders: list[int] = field(default_factory=list)
    cents: int = 0
    sold_out: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, what: str, status: int, seconds: float) -> None:
        """Count one answer."""
        with self.lock:
            self.statuses[status] += 1
            self.times[what].append(seconds)

    def breakage(self, error: Exception) -> None:
        """Count a connection that broke."""
        with self.lock:
            self.broken[type(error).__name__] += 1

    def order(self, order: Mapping[str, Any]) -> None:
        """Count an order."""
        with self.lock:
            self.orders.append(order["id"])
            self.cents += order["total_cents"]


class Client:
    """One connection kept alive, and the tokens that go with its requests."""

    def __init__(self, url: str, seen: Seen) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=15)
        self._seen = seen
        self.headers: dict[str, str] = {}

    def send(self, what: str, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Send one request; return the status and the JSON of the answer, None for pages."""
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if data else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        began = time.perf_counter()
        try:
            self._connection.request(method, path, data, {**self.headers, **kind, **named})
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._seen.breakage(error)
            return 0, None
        self._seen.answer(what, response.status, time.perf_counter() - began)
        self._keep_cart(response)
        return response.status, json.loads(content) if "json" in response.headers.get("Content-Type", "") else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def sign_in(self, tokens: Mapping[str, Any]) -> None:
        """Send this access token from now on; the cart belongs to the user now."""
        self.headers = {"Authorization": f"Bearer {tokens['access_token']}"}

    def _keep_cart(self, response: http.client.HTTPResponse) -> None:
        token = response.headers.get("X-Cart-Token")
        if token and "Authorization" not in self.headers:
            self.headers["X-Cart-Token"] = token


class Buyer:
    """Somebody who shops until the time is over."""

    def __init__(self, client: Client, seen: Seen, number: int, pace: float) -> None:
        self.client = client
        self.seen = seen
        self.pace = pace
        self.chance = random.Random(number)  # noqa: S311  # the same walk every time, nothing secret
        self.account = {
            "email": f"buyer-{number}-{secrets.token_hex(4)}@example.com",
            "name": f"Buyer {number}",
            "password": secrets.token_urlsafe(12),
        }
        self.known = False
        self.orders = 0

    def shop(self, products: Sequence[int], until: float) -> None:
        """Look around and buy until *until*, on the clock of `time.monotonic`."""
        weights = list(accumulate(1 / rank for rank in range(1, len(products) + 1)))
        for _ in range(MOST_PER_BUYER // 12):
            if time.monotonic() >= until:
                return
            wanted = self.chance.choices(products, cum_weights=weights, k=self.chance.randint(1, 4))
            self._browse(wanted)
            for product in wanted:
                self._add(product)
            if self.chance.random() < 0.6:
                self._buy()

    def _browse(self, wanted: Sequence[int]) -> None:
        self._get("home page", "/")
        self._get("list page", f"/products?page={self.chance.randint(1, 5)}")
        self._get("search", f"/api/products?q={quote_plus(self.chance.choice(WORDS))}")
        for product in wanted:
            self._get("product page", f"/products/{product}")
            self._get("product", f"/api/products/{product}")

    def _get(self, what: str, path: str) -> None:
        self._pause()
        self.client.send(what, "GET", path)

    def _add(self, product: int) -> None:
        self._pause()
        body = {"product": product, "quantity": self.chance.choice((1, 1, 1, 2, 3))}
        status, _ = self.client.send("add to cart", "POST", "/api/cart/items", body)
        self._note_sold_out(status)

    def _buy(self) -> None:
        if not self.known:
            self._sign("sign up", "/api/accounts/sign-up", 201)
        elif self.orders % SIGN_INS == 0:
            self._sign("sign in", "/api/accounts/sign-in", 200)
        if not self.known:
            return
        self._pause()
        key = secrets.token_hex(16)
        status, order = self._check_out(key)
        if status == 201:
            self.orders += 1
            self.seen.order(order)
            if self.chance.random() < 0.1:  # a double click: it must be answered with the same order
                self._check_out(key)
        elif status == 409:
            self._note_sold_out(status)
            self._empty_cart()
        self._get("orders", "/api/orders")

    def _check_out(self, key: str) -> tuple[int, Any]:
        body = {"address": "1 Harbour Road"}
        return self.client.send("checkout", "POST", "/api/checkout", body, Idempotency_Key=key)

    def _sign(self, what: str, path: str, expected: int) -> None:
        status, tokens = self.client.send(what, "POST", path, self.account)
        if status == expected:
            self.known = True
            self.client.sign_in(tokens)

    def _empty_cart(self) -> None:
        _, cart = self.client.send("cart", "GET", "/api/cart")
        for item in (cart or {}).get("items", ()):
            self.client.send("remove", "DELETE", f"/api/cart/items/{item['product']['id']}")

    def _note_sold_out(self, status: int) -> None:
        if status == 409:
            with self.seen.lock:
                self.seen.sold_out += 1

    def _pause(self) -> None:
        time.sleep(self.chance.expovariate(1 / self.pace) if self.pace else 0)


def run(url: str, buyers: int, seconds: float, pace: float) -> tuple[Seen, list[Buyer]]:
    """Let *buyers* shop for *seconds*; return what they saw, and themselves to ask about their orders."""
    seen = Seen()
    people = [Buyer(Client(url, seen), seen, number, pace) for number in range(buyers)]
    products = popular(people[0].client)
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=one.shop, args=(products, until), daemon=True) for one in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    return seen, people


def popular(client: Client) -> list[int]:
    """Return the ids of all products, the most popular first: which those are is the same in every run."""
    found: list[int] = []
    pages = number = 1
    while number <= min(pages, 100):
        status, page = client.send("list", "GET", f"/api/products?page={number}")
        if status != 200:
            return found or [1]
        found += [product["id"] for product in page["products"]]
        pages, number = page["pages"], number + 1
    random.Random(1).shuffle(found)  # noqa: S311  # a fixed order, nothing secret
    return found


def unsent_mails(people: Sequence[Buyer], seconds: float) -> list[int]:
    """Return the orders whose mail has not gone out after waiting up to *seconds* for it."""
    until = time.monotonic() + seconds
    while True:
        unsent = [order["id"] for one in people for order in _orders(one) if not order["mail_sent"]]
        if not unsent or time.monotonic() > until:
            return unsent
        time.sleep(0.5)


def _orders(buyer: Buyer) -> Sequence[Mapping[str, Any]]:
    if not buyer.orders:
        return ()
    status, answer = buyer.client.send("orders", "GET", "/api/orders")
    return answer["orders"] if status == 200 else ()


def oversold(url: str, seen: Seen, email: str, password: str) -> list[str] | None:
    """Return the products whose books do not balance; None when the account may not see the inventory."""
    client = Client(url, seen)
    try:
        status, tokens = client.send(
            "sign in", "POST", "/api/accounts/sign-in", {"email": email, "password": password}
        )
        if status != 200:
            return None
        client.sign_in(tokens)
        status, books = client.send("inventory", "GET", "/api/inventory")
        return [line["slug"] for line in books["products"] if not line["balanced"]] if status == 200 else None
    finally:
        client.close()


def report(seen: Seen, seconds: float) -> None:
    """Print requests by status, and times by what was asked."""
    total = sum(seen.statuses.values())
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(seen.statuses.items()))
    print(f"{total} requests in {seconds:.0f} s ({total / seconds:.0f}/s); by status {statuses}")
    print(f"\n{'':14}{'requests':>9}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'max ms':>9}")
    everything = [value for values in seen.times.values() for value in values]
    for what, values in (*sorted(seen.times.items()), ("all", everything)):
        ranks = (percentile(values, share) * 1000 for share in (0.5, 0.95, 0.99, 1))
        print(f"{what:14}{len(values):9}" + "".join(f"{rank:9.1f}" for rank in ranks))
    print(f"\norders       {len(seen.orders)}, worth {seen.cents / 100:,.2f} euros")
    print(f"not enough   {seen.sold_out} times, answered 409")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of the values do not exceed; zero for none."""
    ordered = sorted(values) or [0.0]
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sample_app.traffic", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the shop is (%(default)s)")
    parser.add_argument("--buyers", type=int, default=20, help="how many shop at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="for how long (%(default)s)")
    parser.add_argument("--pace", type=float, default=0.1, help="mean pause between requests, in s (%(default)s)")
    parser.add_argument("--mail-wait", type=float, default=20, help="how long mails may take; 0 asks for none")
    parser.add_argument("--admin", default=DEMO_ADMIN, help="who may see the inventory (%(default)s)")
    parser.add_argument("--admin-password", default=DEMO_PASSWORD, help="the demo's, if not given")
    options = parser.parse_args(arguments)

    seen, people = run(options.url, max(1, min(options.buyers, 500)), min(options.seconds, 3600), options.pace)
    unsent = unsent_mails(people, options.mail_wait) if options.mail_wait else []
    books = oversold(options.url, seen, options.admin, options.admin_password)
    for one in people:
        one.client.close()
    report(seen, options.seconds)
    return judge(seen, books, unsent if options.mail_wait else None)


def judge(seen: Seen, books: Sequence[str] | None, unsent: Sequence[int] | None) -> int:
    """Print the verdict; return 0 when nothing went wrong."""
    failed = sum(count for status, count in seen.statuses.items() if status >= 500)
    broken = sum(seen.broken.values())
    if unsent is not None:
        print(f"mails        {len(seen.orders) - len(unsent)} of {len(seen.orders)} sent")
    print(
        "oversold     "
        + ("not checked: this needs an administrator" if books is None else f"{len(books)} products")
    )
    causes = f" {dict(seen.broken)}" if broken else ""
    print(f"failed       {failed} answers from 500 up, {broken} broken connections{causes}")
    return 1 if failed or broken or books or unsent else 0


if __name__ == "__main__":
    sys.exit(main())
