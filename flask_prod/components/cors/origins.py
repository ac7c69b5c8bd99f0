"""Which origins are allowed: exact ones, true subdomains, or what a function says. No regular expressions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

_EXACT = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?", re.ASCII)
_SUBDOMAINS = re.compile(r"[a-z][a-z0-9+-]*://\*((?:\.[a-z0-9_-]+)+(?::[0-9]{1,5})?)", re.ASCII)
_LABELS = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*", re.ASCII)
_LONGEST_ORIGIN = 300


@dataclass(frozen=True)
class Origins:
    """A list of origins to ask; `subdomains` are pairs of scheme and suffix."""

    exact: frozenset[str] = frozenset()
    subdomains: tuple[tuple[str, str], ...] = ()
    any: bool = False
    check: Callable[[str], bool] | None = None

    @classmethod
    def parse(cls, values: Iterable[str], check: Callable[[str], bool] | None = None) -> Origins:
        """Build the list from settings that `origin_problems` found nothing wrong with."""
        values = tuple(values)
        wild = [value.partition("*") for value in values if "://*." in value]
        return cls(
            exact=frozenset(value for value in values if "*" not in value),
            subdomains=tuple((scheme, suffix) for scheme, _, suffix in wild),
            any="*" in values,
            check=check,
        )

    def __bool__(self) -> bool:
        return bool(self.exact or self.subdomains or self.any or self.check)

    def lists(self, origin: str) -> bool:
        """Tell whether *origin* is on the list or a true subdomain; the whole of it is compared."""
        if origin in self.exact:
            return True
        return len(origin) <= _LONGEST_ORIGIN and any(
            origin.startswith(scheme)
            and origin.endswith(suffix)
            and _LABELS.fullmatch(origin[len(scheme) : -len(suffix)]) is not None
            for scheme, suffix in self.subdomains
        )

    def patterns(self) -> list[str | re.Pattern[str]]:
        """Return the list as Flask-CORS takes it, anchored: what `@cross_origin` allows by default."""
        if self.any:
            return ["*"]
        exact = [re.compile(re.escape(origin) + r"\Z") for origin in sorted(self.exact)]
        subdomains = [
            re.compile(f"{re.escape(scheme)}(?:{_LABELS.pattern}){re.escape(suffix)}\\Z", re.ASCII)
            for scheme, suffix in self.subdomains
        ]
        return [*exact, *subdomains]


def origin_problems(values: Iterable[object], key: str) -> Iterator[str]:
    """Yield what is wrong with each of *values*, which the user typed under *key*."""
    for value in values:
        advice = _advice(value)
        if advice:
            shown = value.pattern if isinstance(value, re.Pattern) else value
            yield f"{key} has {shown!r}: {advice}"


def _advice(value: object) -> str | None:
    if not isinstance(value, str):
        return "regular expressions match look-alikes; write the origin, or https://*.example.com for subdomains."
    if value == "*" or _EXACT.fullmatch(value):
        return _about_default_port(value)
    if value == "null":
        return "any page in a sandboxed frame sends this origin; name the site instead."
    wild = _SUBDOMAINS.fullmatch(value)
    if wild is not None:
        top = wild[1].partition(":")[0]
        if top.count(".") < 2 and top != ".localhost":
            return f"this would allow every site under {top}; name at least https://*.example{top}."
        return _about_default_port(value)
    if _EXACT.fullmatch(value.lower().rstrip("/")):
        return (
            f"browsers send {value.lower().rstrip('/')}, without a slash at the end and in lower case; write that."
        )
    if not value.isascii():
        return "browsers send international names in their xn-- form; write that."
    return (
        "an origin is scheme, host and port, as https://shop.example.com; https://*.example.com covers subdomains."
    )


def _about_default_port(value: str) -> str | None:
    scheme, _, rest = value.partition("://")
    if (scheme, rest.rpartition(":")[2]) in {("https", "443"), ("http", "80")} and ":" in rest:
        return "browsers leave out the default port; leave it out here."
    return None
