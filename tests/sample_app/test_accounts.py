from __future__ import annotations

from datetime import UTC, datetime, timedelta

import jwt
import pytest

from tests.sample_app.conftest import StartShop
from tests.sample_app.shop import PASSWORD, SECRET, Shop


def test_account_is_made_and_used(shop: Shop) -> None:
    """Sign-up answers tokens, sign-in does it again, and they say who it is."""
    user = shop.sign_up("ada@example.com")["user"]

    tokens = shop.api("POST", "/accounts/sign-in", {"email": " ADA@example.com ", "password": PASSWORD}).json

    assert shop.api("GET", "/accounts/me", token=tokens["access_token"]).json == user
    assert user["email"] == "ada@example.com"
    assert user["is_admin"] is False


def test_sign_up_tells_all_that_is_wrong(shop: Shop) -> None:
    """Each field has its sentence, and none repeats the password."""
    body = {"email": "no address", "name": "", "password": "short-one"}
    answer = shop.api("POST", "/accounts/sign-up", body)

    assert answer.status == 422
    assert answer.json["errors"] == {
        "email": "This does not look like an e-mail address.",
        "name": "Please fill this in.",
        "password": "Please use 10 to 200 characters.",
    }
    assert "short-one" not in answer.text


@pytest.mark.parametrize("value", [None, 5, [], {}, True])
def test_fields_that_are_no_text_are_told(shop: Shop, value: object) -> None:
    """A value of another type is 422 for each field, never a crash."""
    answer = shop.api("POST", "/accounts/sign-up", {"email": value, "name": value, "password": value})

    assert answer.status == 422
    assert set(answer.json["errors"]) == {"email", "name", "password"}


def test_address_is_taken_once(shop: Shop) -> None:
    """A second account of one address is refused, in whatever case it is written."""
    shop.sign_up("once@example.com")

    again = {"email": "ONCE@example.com", "name": "Eve", "password": PASSWORD}
    answer = shop.api("POST", "/accounts/sign-up", again)

    assert answer.status == 422
    assert "There is an account" in answer.json["errors"]["email"]


def test_wrong_password_and_unknown_address_look_the_same(shop: Shop) -> None:
    """Nobody learns from the answer who has an account."""
    shop.sign_up("known@example.com")

    wrong = shop.api("POST", "/accounts/sign-in", {"email": "known@example.com", "password": "not-the-one"})
    nobody = shop.api("POST", "/accounts/sign-in", {"email": "nobody@example.com", "password": "not-the-one"})

    assert wrong.status == nobody.status == 401
    assert wrong.json["detail"] == nobody.json["detail"]


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "é"])
def test_wrong_token_is_401(shop: Shop, token: str) -> None:
    """What is no token of ours is answered 401 with a challenge and advice."""
    answer = shop.api("GET", "/orders", Authorization=f"Bearer {token}".encode().decode("latin-1"))

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].lower().startswith("bearer")
    assert "sign in" in answer.json["detail"]


def test_missing_token_is_401(shop: Shop) -> None:
    """Without a token the answer says how to send one."""
    assert "Authorization: Bearer" in shop.api("GET", "/orders").json["detail"]


def test_token_of_another_secret_is_401(shop: Shop) -> None:
    """A token that somebody else signed is worth nothing."""
    assert shop.api("GET", "/orders", token=_token("x" * 40)).status == 401


def test_unsigned_token_is_401(shop: Shop) -> None:
    """A token that says it needs no signature is refused."""
    assert shop.api("GET", "/orders", token=jwt.encode({"sub": "1"}, "", algorithm="none")).status == 401


def test_expired_token_is_401(shop: Shop) -> None:
    """An expired token is told apart from a wrong one: a new one is there to be had."""
    answer = shop.api("GET", "/orders", token=_token(SECRET, age=timedelta(hours=1)))

    assert answer.status == 401
    assert "has expired" in answer.json["detail"]


def test_token_of_a_deleted_account_is_401(shop: Shop) -> None:
    """A valid token of nobody is refused."""
    answer = shop.api("GET", "/orders", token=_token(SECRET, subject="999999"))

    assert answer.status == 401
    assert "is gone" in answer.json["detail"]


def test_refresh_token_gives_access_tokens(shop: Shop) -> None:
    """The refresh token buys a new access token, and nothing else."""
    tokens = shop.sign_up()

    new = shop.api("POST", "/accounts/refresh", token=tokens["refresh_token"]).json["access_token"]

    assert shop.api("GET", "/orders", token=new).status == 200
    assert shop.api("GET", "/orders", token=tokens["refresh_token"]).status == 401
    assert shop.api("POST", "/accounts/refresh", token=tokens["access_token"]).status == 401


def test_sign_out_ends_all_tokens_of_a_sign_in(shop: Shop) -> None:
    """Access, refresh and refreshed tokens are dead; another sign-in of the same user lives on."""
    email = "leaving@example.com"
    tokens = shop.sign_up(email)
    refreshed = shop.api("POST", "/accounts/refresh", token=tokens["refresh_token"]).json["access_token"]
    other = shop.api("POST", "/accounts/sign-in", {"email": email, "password": PASSWORD}).json["access_token"]

    assert shop.api("POST", "/accounts/sign-out", token=refreshed).status == 204

    dead = (tokens["access_token"], refreshed)
    assert [shop.api("GET", "/orders", token=one).status for one in dead] == [401, 401]
    assert shop.api("POST", "/accounts/refresh", token=tokens["refresh_token"]).status == 401
    assert shop.api("GET", "/orders", token=other).status == 200


def test_sign_in_is_limited(start_shop: StartShop, redis_url: str) -> None:
    """With the limits of production the sixth attempt in a quarter of an hour waits."""
    shop = start_shop(REDIS_URL=redis_url, RATE_LIMIT_POLICIES="")

    body = {"email": "a@example.com", "password": "guess"}
    answers = [shop.api("POST", "/accounts/sign-in", body) for _ in range(6)]

    assert [one.status for one in answers] == [401] * 5 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert answers[-1].headers["Content-Type"] == "application/problem+json"


def _token(secret: str, subject: str = "1", age: timedelta = timedelta()) -> str:
    issued = datetime.now(UTC) - age
    claims = {"sub": subject, "iat": issued, "nbf": issued, "exp": issued + timedelta(minutes=15)}
    claims |= {"jti": "1", "type": "access", "fresh": False, "csrf": "1", "sid": "0" * 32, "until": 2**31}
    return jwt.encode(claims, secret, algorithm="HS256")
