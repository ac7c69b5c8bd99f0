from __future__ import annotations

import copy
import datetime
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prod.core.values import Secret, SecretUrl, parse_duration, parse_size


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [("30s", 30), ("5m", 300), ("1h", 3600), ("7d", 604800), ("250ms", 0.25), ("1.5", 1.5), (0, 0), (2.5, 2.5)],
)
def test_duration(typed: object, seconds: float) -> None:
    """A duration is understood with its unit or as plain seconds."""
    assert parse_duration(typed) == seconds


def test_timedelta_is_a_duration() -> None:
    """Python's own timedelta is taken as it is."""
    assert parse_duration(datetime.timedelta(minutes=2)) == 120


@pytest.mark.parametrize("typed", ["", "soon", "5 minutes", "-1s", True, "1h30m", "٣s"])
def test_not_a_duration(typed: object) -> None:
    """What is no duration is refused, never guessed."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(typed)


@pytest.mark.parametrize(("typed", "size"), [("512MB", 512 * 1024**2), ("1g", 1024**3), ("10KiB", 10240), (7, 7)])
def test_size(typed: object, size: int) -> None:
    """A size is understood with its unit or as plain bytes."""
    assert parse_size(typed) == size


@pytest.mark.parametrize("typed", ["", "big", "-1MB", True])
def test_not_a_size(typed: object) -> None:
    """What is no size is refused."""
    with pytest.raises(ValueError, match="not a size"):
        parse_size(typed)


@given(st.text(min_size=9))
def test_secret_shows_nothing(text: str) -> None:
    """No way of printing a secret shows its text."""
    secret = Secret(text)

    assert all(
        text not in shown for shown in (repr(secret), str(secret), f"{secret}", secret.shown(), format(secret))
    )
    assert secret.reveal() == text


def test_secret_is_not_pickled() -> None:
    """A secret cannot leave the process by accident."""
    for leave in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            leave(Secret("s3cret"))


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://:hunter2@cache:6379/0", "redis://***@cache:6379/0"),
        ("postgresql://shop:hunter2@db/shop?sslpassword=hunter2", "postgresql://***@db/shop?***"),
        ("redis://[::1]:6379", "redis://[::1]:6379"),
        ("sqlite:///shop.db", "sqlite:/shop.db"),
    ],
)
def test_address_without_password(address: str, shown: str) -> None:
    """An address is recognisable without the parts that could be credentials."""
    assert SecretUrl(address).shown().replace(":///", ":/") == shown


@pytest.mark.parametrize(
    "address",
    [
        "hunter2", "redis://u:hunter2@host:notaport/0", "http://[hunter2", "admin:hunter2", "admin:hunter2@host/0",
        "a:hunter2://b", "redis:/hunter2", "//hunter2", " redis://hunter2",
    ],
)  # fmt: skip
def test_malformed_address_shows_a_fingerprint(address: str) -> None:
    """What cannot be taken apart is not shown at all."""
    assert "hunter2" not in SecretUrl(address).shown()
