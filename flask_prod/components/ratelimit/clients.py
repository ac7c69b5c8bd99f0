"""Who a request is counted for: a known user, an API key, or an address."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Network: TypeAlias = IPv4Network | IPv6Network

_LONGEST = 128
_HASHED = "key:sha256-"

EXEMPT = "exempt network"
"""Stands for an address of RATE_LIMIT_EXEMPT, where others have the key of a client; compared by identity."""


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


def secret_key(secret: str) -> str:
    """Return what an API key is counted under: half of its SHA-256, since keys of Redis are seen by many."""
    return _HASHED + hashlib.sha256(secret.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def client_key(text: str) -> str:
    """Return the key for what an operator typed: an address, a network as shown, `user:ID`, `key:SECRET`."""
    if text.startswith("key:"):
        return text if text.startswith(_HASHED) else secret_key(text[len("key:") :])
    return text if text.startswith("user:") or text.endswith("/64") else address_key(text)


def header_names(headers: Sequence[str]) -> tuple[str, ...]:
    """Return headers as a WSGI environment spells them."""
    return tuple("HTTP_" + name.strip().upper().replace("-", "_") for name in headers)


def presented_key(environ: WSGIEnvironment, names: Sequence[str]) -> str | None:
    """Return the first of some headers that a request has."""
    return next((environ[name] for name in names if environ.get(name)), None)


def read_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Return addresses and networks; ValueError names the first that is none."""
    return tuple(_network(text) for text in texts)


def lies_in(address: str, networks: Sequence[Network]) -> bool:
    """Tell whether an address belongs to one of some networks; what is no address belongs to none."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return any((mapped or parsed) in network for network in networks)


def _network(text: str) -> Network:
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"{text} is neither an address nor a network such as 10.0.0.0/8.") from None


def _short(text: str) -> str:
    """Keep what is short and plain, and hash the rest: keys must stay small, printable and encodable."""
    if len(text) <= _LONGEST and text.isascii() and text.isprintable():
        return text
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
