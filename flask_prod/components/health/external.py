"""Checks of external services, written in the settings as `payments=https://host/ping#timeout=1s`.

What follows the `#` is ours and never sent: `critical`, `ready`, `timeout=`, `interval=`, `group=`, joined by `&`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from urllib.parse import SplitResult, parse_qsl, urlsplit

from flask_prod.core.component import Check, Finding
from flask_prod.core.ports import GaugePort
from flask_prod.core.values import SecretUrl, parse_duration

from .names import is_name
from .protocols import ASKS, CERTIFICATE_ENDS, Ask
from .watch import Plan

_OPTIONS = frozenset({"critical", "ready", "timeout", "interval", "group"})
_NEEDS_PORT = frozenset({"tcp", "tls"})
_NAMED = re.compile(r"\s*([^=:/\s]*)\s*=\s*(.*)", re.DOTALL)
_SHARE = 0.9
"""Part of a check's time limit that its question may take: so it says itself what was slow."""


class NamedUrl(SecretUrl):
    """`name=address`: shown with its name, and the address without what could be a credential."""

    __slots__ = ("name",)

    def __init__(self, text: str) -> None:
        match = _NAMED.fullmatch(text)
        self.name = match[1] if match else ""
        super().__init__(match[2].strip() if match else text)

    def shown(self) -> str:
        """Return name and address as they may be shown."""
        return f"{self.name}={super().shown()}" if self.name else super().shown()


def problems(urls: Iterable[NamedUrl]) -> Iterator[str]:
    """Yield what is wrong with HEALTH_CHECKS, without showing an address."""
    seen: set[str] = set()
    for place, url in enumerate(urls, 1):
        which = f"{url.name!r}" if url.name else f"entry {place}"
        if not is_name(url.name):
            yield f"HEALTH_CHECKS: {which} must be written name=address, the name like a part of a path."
        elif url.name in seen:
            yield f"HEALTH_CHECKS names {which} twice."
        seen.add(url.name)
        yield from (f"HEALTH_CHECKS: {which} {words}" for words in _wrong(url.reveal()))


def plans(
    urls: Iterable[NamedUrl], timeout: float, interval: float, certificates: GaugePort | None = None
) -> Iterator[Plan]:
    """Yield a check for each address; not critical unless it says so: others must not take this service down."""
    for url in urls:
        parts = urlsplit(url.reveal())
        options = parse_qsl(parts.fragment, keep_blank_values=True)
        given = dict(options)
        limit = parse_duration(given["timeout"]) if "timeout" in given else timeout
        probe = Probe(ASKS[parts.scheme], parts, limit)
        if certificates is not None:
            probe.on_certificate = partial(_note, certificates, url.name)
        check = Check(url.name, probe, "critical" in given, "ready" in given, limit)
        kept = parse_duration(given["interval"]) if "interval" in given else interval
        groups = frozenset(value for name, value in options if name == "group")
        yield Plan(check, limit, kept, groups=groups)


class Probe:
    """Asks one address; equal to another of the same address, so that a check goes on as it is."""

    def __init__(self, ask: Ask, url: SplitResult, limit: float) -> None:
        self._ask = ask
        self._url = url
        self._limit = limit
        self.on_certificate: Callable[[float], None] | None = None

    def __call__(self) -> Finding:
        """Ask; told is when the certificate that was shown ends."""
        found = self._ask(self._url, self._limit * _SHARE)
        ends = found.data.get(CERTIFICATE_ENDS)
        if self.on_certificate is not None and isinstance(ends, float):
            self.on_certificate(ends)
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Probe) and (other._url, other._limit) == (self._url, self._limit)

    def __hash__(self) -> int:
        return hash((self._url, self._limit))


def _note(certificates: GaugePort, name: str, ends: float) -> None:
    certificates.set(ends, name)


def _wrong(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        yield "is not an address."
        return
    if parts.scheme not in ASKS:
        yield f"must begin with one of {', '.join(f'{scheme}://' for scheme in ASKS)}."
    elif not parts.hostname:
        yield "has no host."
    elif parts.scheme in _NEEDS_PORT and not port:
        yield "needs a port."
    yield from _wrong_options(parts.fragment)


def _wrong_options(fragment: str) -> Iterator[str]:
    for name, value in parse_qsl(fragment, keep_blank_values=True):
        if name not in _OPTIONS:
            yield f"has an option that is none of {', '.join(sorted(_OPTIONS))}."
        elif name in ("timeout", "interval"):
            try:
                good = parse_duration(value) > 0
            except ValueError:
                good = False
            if not good:
                yield f"needs a duration such as 2s for {name}."
        elif name == "group" and not is_name(value):
            yield "needs a group's name like a part of a path."
