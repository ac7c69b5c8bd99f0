"""Who a request is counted for: a known user, or an address."""

from __future__ import annotations

import hashlib
from ipaddress import IPv6Address, ip_address

_LONGEST = 128


def address_key(address: str) -> str:
    """Return what an address is counted under: IPv4 as it is, also when mapped into IPv6; IPv6 by its /64.

    One customer of a provider has a whole /64, so that counting single addresses would count nothing.
    """
    if ":" not in address:
        return address or "unknown"
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return _short(address)
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


def user_key(user: str) -> str:
    """Return what a user is counted under; never equal to an address."""
    return f"user:{_short(user)}"


def client_key(text: str) -> str:
    """Return the key for what an operator typed: an address, a network as shown in a key, or `user:ID`."""
    return text if text.startswith("user:") or text.endswith("/64") else address_key(text)


def _short(text: str) -> str:
    """Keep what is short and plain, and hash the rest: keys must stay small, printable and encodable."""
    if len(text) <= _LONGEST and text.isascii() and text.isprintable():
        return text
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
