"""Who is near."""

from __future__ import annotations

import pytest

from flask_prod.core.peers import is_near


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("127.0.0.1", True), ("10.1.2.3", True), ("172.16.0.1", True), ("192.168.1.1", True), ("::1", True),
        ("fd00::1", True), ("fe80::1%eth0", True), ("::ffff:10.0.0.1", True), ("8.8.8.8", False),
        ("203.0.113.9", False), ("172.32.0.1", False), ("2001:db8::1", False), ("::ffff:8.8.8.8", False),
        ("", False), ("unix:", False), ("localhost", False),
    ],
)  # fmt: skip
def test_is_near(address: str, near: bool) -> None:
    """Only loopback and private networks are near; what is no address is not."""
    assert is_near(address) is near
