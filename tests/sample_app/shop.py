"""A running shop as tests see it: JSON for programs, forms and cookies for people."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sample_app import create_app
from tests.servers import Answer, Gunicorn

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef" * 4
PASSWORD = "a-long-password"

ENVIRONMENT = {
    "ENVIRONMENT": "test",
    "SECRET_KEY": SECRET,
    "JWT_SECRET_KEY": SECRET,
    "PASSWORD_METHOD": "pbkdf2:sha256:1000",  # quick: how strong the hash is belongs to the default
    "RATE_LIMIT_PUBLIC": "100000",
    "RATE_LIMIT_AUTHENTICATED": "100000",
    "RATE_LIMIT_POLICIES": "auth=100000/1m; checkout=100000/1m",
    "JOBS_OUTBOX": "always",
    "ENV_FILE": "/dev/null",
    "SECRETS_DIR": "/dev/null",
}


class Shop(Gunicorn):
    """The shop behind real gunicorn, with two workers of four threads."""

    def __init__(self, env: Mapping[str, str], args: tuple[str, ...] = ("-w", "2", "--threads", "4")) -> None:
        super().__init__(
            "sample_app:create_app()",
            config=ROOT / "gunicorn.conf.py",
            args=args,
            env={**ENVIRONMENT, **env},
            ready="/api/categories",
        )

    def api(self, method: str, path: str, body: object = None, token: str | None = None, **headers: str) -> Answer:
        """Send JSON to a path below /api."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        return self.request(method, f"/api{path}", data, sent, timeout=20)

    def sign_up(self, email: str | None = None) -> dict[str, Any]:
        """Make an account; return its tokens."""
        email = email or f"{secrets.token_hex(6)}@example.com"
        account = {"email": email, "name": "Ada", "password": PASSWORD}
        answer = self.api("POST", "/accounts/sign-up", account)
        assert answer.status == 201, answer.text
        tokens: dict[str, Any] = answer.json
        return tokens

    def buyer(self, product: int = 1, quantity: int = 1) -> str:
        """Make an account with something in its cart; return its access token."""
        token: str = self.sign_up()["access_token"]
        answer = self.api("POST", "/cart/items", {"product": product, "quantity": quantity}, token)
        assert answer.status == 200, answer.text
        return token

    def admin(self) -> str:
        """Return the access token of the administrator that every prepared database has."""
        answer = self.api("POST", "/accounts/sign-in", {"email": "boss@example.com", "password": PASSWORD})
        assert answer.status == 200, answer.text
        token: str = answer.json["access_token"]
        return token

    def stock(self, product: int) -> dict[str, Any]:
        """Return a product's line in the inventory."""
        lines: list[dict[str, Any]] = self.api("GET", "/inventory", token=self.admin()).json["products"]
        return next(line for line in lines if line["id"] == product)


class Browser:
    """Somebody with a browser: keeps cookies, and says where forms come from, as browsers do."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.cookie = ""

    def get(self, path: str) -> Answer:
        """Open a page."""
        return self._send("GET", path, None, {})

    def post(self, path: str, origin: str | None = "", **fields: object) -> Answer:
        """Submit a form of the shop, or with *origin* from another site's page."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if origin is not None:
            headers["Origin"] = origin or self.shop.url
        return self._send("POST", path, urlencode(fields).encode(), headers)

    def sign_up(self, name: str = "Ada") -> Answer:
        """Make an account by the form."""
        email = f"{secrets.token_hex(6)}@example.com"
        return self.post("/sign-up", name=name, email=email, password=PASSWORD)

    def _send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        sent = {"Accept": "text/html,*/*;q=0.8", **headers}
        if self.cookie:
            sent["Cookie"] = self.cookie
        answer = self.shop.request(method, path, body, sent, timeout=20)
        given = answer.headers.get("Set-Cookie")
        if given is not None:
            self.cookie = given.partition(";")[0]
        return answer


def prepare(url: str, folder: Path) -> None:
    """Prepare the database at *url*, with an administrator called boss@example.com."""
    app = create_app({**ENVIRONMENT, "DATABASE_URL": url, "DATA_DIR": str(folder)})
    try:
        runner = app.test_cli_runner()
        made = runner.invoke(args=["prepare"])
        assert made.exit_code == 0, made.output
        added = runner.invoke(args=["create-admin", "boss@example.com", "--password", PASSWORD])
        assert added.exit_code == 0, added.output
    finally:
        app.extensions["prod"].lifecycle.close()


def copy_of(database: Path, folder: Path) -> dict[str, str]:
    """Copy a prepared SQLite file; return the settings of a shop that uses the copy."""
    shutil.copy(database, folder / "shop.db")
    return {"DATABASE_URL": f"sqlite:///{folder / 'shop.db'}", "DATA_DIR": str(folder)}
