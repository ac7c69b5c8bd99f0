"""Who a request is counted for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prod.components.ratelimit.clients import address_key, client_key, user_key


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
