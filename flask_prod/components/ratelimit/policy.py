"""Policies: how many points a client has in which window, and what follows a breach."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flask_prod.core.values import parse_duration

from .chosen import Chosen

MAX_POINTS = 1_000_000
MAX_WINDOW = 31 * 86400.0
"""With these bounds all arithmetic stays below 2**53, where Lua and Python agree to the last digit."""

BUILT_IN: Mapping[str, str] = {
    "api": "100/1m block 5m",
    "auth": "5/15m block 1h",
    "checkout": "10/10m block 30m",
    "admin": "1000/1m",
}
"""Policies that exist out of the box; `public` and `authenticated` come from settings of their own."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_UNIT = r"(?:ms|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:ours?)?|d(?:ays?)?|w)"
_RULE = re.compile(rf"(?P<points>\d+)\s*/\s*(?P<window>\d*\.?\d*\s*{_UNIT}|\d+)(?P<rest>(?:\s+\S+)*)")
_WORDS = re.compile(r"^(\d*\.?\d*)\s*(?:(s)ec(?:ond)?s?|(m)in(?:ute)?s?|(h)ours?|(d)ays?)$")

SUBJECTS = ("address", "user", "key")
OUTAGES = ("local", "open", "closed")


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `points` in any `window` (milliseconds); a breach shuts the client out for `block` milliseconds.

    `fail` is what holds while Redis is away: local, open or closed; empty takes RATE_LIMIT_FAIL. `by` is whom it
    counts: address, user or key; empty is the user, else the address. `prefix` names the counters, the policy's
    name by default: policies with the same one share them. A `shadow` counts and reports, but refuses nobody.
    `price` gives the cost of a request in place of `cost`; `chosen` tells which answers count.
    """

    name: str
    points: int
    window: int
    block: int = 0
    fail: str = ""
    cost: int = 1
    by: str = ""
    prefix: str = ""
    shadow: bool = False
    price: Callable[[], int] | None = None
    chosen: Chosen | None = None

    def shared_by(self, processes: int) -> Policy:
        """Return the part that one of several processes may give while they cannot count together."""
        return replace(self, points=max(self.cost, -(-self.points // processes)))


def parse_policy(name: str, rule: str) -> Policy | None:
    """Return the policy that *rule* spells: `100/1m`, `5/15m block 1h`, `1000/1h by key`; None if it is empty.

    ValueError says what is wrong with it, by its name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a policy's name: use letters, digits, dots, dashes and underscores.")
    if not rule.strip():
        return None
    match = _RULE.fullmatch(rule.strip().lower())
    if match is None:
        raise ValueError(f"{name}={rule} is not a policy; write {name}=10/10m or {name}=5/15m block 1h.")

    points = int(match["points"])
    if not 1 <= points <= MAX_POINTS:
        raise ValueError(f"{name}={rule}: the points must be from 1 to {MAX_POINTS:,}.")
    reader = _Words(f"{name}={rule}", points)
    return Policy(name, points, reader.milliseconds(match["window"]), **reader.read(match["rest"].split()))


class _Words:
    """Reads what follows the window in a rule; errors begin with the rule as typed."""

    def __init__(self, typed: str, points: int) -> None:
        self._typed = typed
        self._points = points

    def read(self, words: list[str]) -> dict[str, Any]:
        """Return the fields that *words* spell."""
        rest = iter(words)
        fields: dict[str, Any] = {}
        for word in rest:
            name, value = self._field(word, rest)
            if name in fields:
                raise ValueError(f"{self._typed}: it says {word} and something else for the same.")
            fields[name] = value
        return fields

    def _field(self, word: str, rest: Iterator[str]) -> tuple[str, Any]:
        if word == "shadow":
            return "shadow", True
        if word in OUTAGES:
            return "fail", word
        if word not in ("block", "by", "cost", "prefix"):
            known = "block 1h, cost 5, by key, prefix NAME, shadow, local, open or closed"
            raise ValueError(f"{self._typed} is not a policy; after the window it may say {known}, not {word}.")
        value = next(rest, "")
        return word, getattr(self, f"_{word}")(value)

    def _block(self, text: str) -> int:
        if not text:
            raise ValueError(f"{self._typed}: block needs a duration such as 1h.")
        return self.milliseconds(text)

    def _by(self, text: str) -> str:
        if text not in SUBJECTS:
            raise ValueError(f"{self._typed}: it may count by {', '.join(SUBJECTS)}, not by {text or 'nothing'}.")
        return text

    def _cost(self, text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= self._points:
            raise ValueError(f"{self._typed}: the cost must be from 1 to the points.")
        return int(text)

    def _prefix(self, text: str) -> str:
        if not _NAME.fullmatch(text):
            raise ValueError(f"{self._typed}: a prefix has letters, digits, dots, dashes and underscores.")
        return text

    def milliseconds(self, text: str) -> int:
        """Return a duration of a rule in milliseconds."""
        word = _WORDS.match(text)
        if word is not None:
            text = (word[1] or "1") + next(unit for unit in word.groups()[1:] if unit)
        try:
            seconds = parse_duration(text if text[:1].isdigit() else f"1{text}")
        except ValueError:
            raise ValueError(f"{self._typed}: {text} is not a duration such as 30s, 5m or 1h.") from None
        if not 1 <= seconds <= MAX_WINDOW:
            raise ValueError(f"{self._typed}: a duration must be from 1s to 31d.")
        return round(seconds * 1000)


def read_policies(
    public: int | None, authenticated: int | None, window: float, rules: Mapping[str, str], *, shadow: bool = False
) -> dict[str, Policy | None]:
    """Return every policy by name, None for one that is switched off; ValueError for a bad rule."""
    policies: dict[str, Policy | None] = {
        name: Policy(name, points, round(window * 1000)) if points else None
        for name, points in (("public", public), ("authenticated", authenticated))
    }
    policies |= {name: parse_policy(name, rule) for name, rule in {**BUILT_IN, **rules}.items()}
    if shadow:
        policies = {name: policy and replace(policy, shadow=True) for name, policy in policies.items()}
    return policies


def describe(policy: Policy) -> str:
    """Say a policy in words: `10 requests in 10m`."""
    return f"{policy.points} requests in {_spell(policy.window)}"


def _spell(milliseconds: int) -> str:
    return "".join(_units(milliseconds // 1000)) or f"{milliseconds}ms"


def _units(seconds: int) -> Iterator[str]:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            yield f"{count}{unit}"
