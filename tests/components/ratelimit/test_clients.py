"""Who a request is counted for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prod.components.ratelimit.clients import (
    address_key,
    client_key,
    header_names,
    lies_in,
    presented_key,
    read_networks,
    secret_key,
    user_key,
)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_addresses(address: str, key: str) -> None:
    """IPv4 by address, also when mapped; IPv6 by the /64 that a customer has to himself."""
    assert address_key(address) == key
    assert client_key(key) == key


@given(st.text())
def test_no_user_is_an_address(user: str) -> None:
    """Whatever an identity looks like, its key is short, encodable, and nobody's address."""
    key = user_key(user)
    assert key.startswith("user:")
    assert key.isascii()
    assert len(key) <= 5 + 128
    assert client_key(key) == key


@given(st.text())
def test_no_api_key_is_kept_in_clear(secret: str) -> None:
    """A key is counted under half of its SHA-256; both what a client sends and what an event shows lead there."""
    key = secret_key(secret)
    assert len(secret) < 4 or secret not in key
    assert len(key) == len("key:sha256-") + 32
    assert client_key(key) == key
    assert client_key(f"key:{secret}") == key or secret.startswith("sha256-")


def test_the_first_header_that_is_there_counts() -> None:
    """Headers are named as people write them, and empty ones are not there."""
    names = header_names(["X-API-Key", "Authorization"])
    assert presented_key({"HTTP_AUTHORIZATION": "Bearer b"}, names) == "Bearer b"
    assert presented_key({"HTTP_AUTHORIZATION": "Bearer b", "HTTP_X_API_KEY": "a"}, names) == "a"
    assert presented_key({"HTTP_X_API_KEY": ""}, names) is None


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::9", True),
        ("2001:db9::9", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("10.0.0.0/8", False),
    ],
)
def test_networks(address: str, inside: bool) -> None:
    """Addresses in any spelling; text that is none belongs nowhere."""
    assert lies_in(address, read_networks(["10.0.0.1/8", "192.0.2.7", "2001:db8::/32"])) is inside
