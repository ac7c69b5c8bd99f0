"""Policies: how many points a client has in which window, and what follows a breach."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from flask_prod.core.values import parse_duration

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
_RULE = re.compile(
    r"(?P<points>\d+)\s*/\s*(?P<window>\d*\.?\d*\s*[a-z]+|\d+)"
    r"(?:\s+block\s+(?P<block>\S+))?(?:\s+(?P<fail>local|open|closed))?"
)
_WORDS = re.compile(r"^(\d*\.?\d*)\s*(?:(s)ec(?:ond)?s?|(m)in(?:ute)?s?|(h)ours?|(d)ays?)$")


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `points` in any `window` (milliseconds); a breach shuts the client out for `block` milliseconds.

    `fail` is what holds while Redis is away: local, open or closed; empty takes RATE_LIMIT_FAIL.
    """

    name: str
    points: int
    window: int
    block: int = 0
    fail: str = ""
    cost: int = 1

    def shared_by(self, processes: int) -> Policy:
        """Return the part that one of several processes may give while they cannot count together."""
        return replace(self, points=max(self.cost, -(-self.points // processes)))


def parse_policy(name: str, rule: str) -> Policy | None:
    """Return the policy that *rule* spells: `100/1m`, `5/15m block 1h`, `5/minute closed`; None if it is empty.

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
    window = _milliseconds(name, rule, match["window"])
    block = _milliseconds(name, rule, match["block"]) if match["block"] else 0
    return Policy(name, points, window, block, match["fail"] or "")


def read_policies(
    public: int | None, authenticated: int | None, window: float, rules: Mapping[str, str]
) -> dict[str, Policy | None]:
    """Return every policy by name, None for one that is switched off; ValueError for a bad rule."""
    policies: dict[str, Policy | None] = {
        name: Policy(name, points, round(window * 1000)) if points else None
        for name, points in (("public", public), ("authenticated", authenticated))
    }
    policies |= {name: parse_policy(name, rule) for name, rule in {**BUILT_IN, **rules}.items()}
    return policies


def describe(policy: Policy) -> str:
    """Say a policy in words: `10 requests in 10m`."""
    return f"{policy.points} requests in {_spell(policy.window)}"


def _milliseconds(name: str, rule: str, text: str) -> int:
    word = _WORDS.match(text)
    if word is not None:
        text = (word[1] or "1") + next(unit for unit in word.groups()[1:] if unit)
    try:
        seconds = parse_duration(text if text[:1].isdigit() else f"1{text}")
    except ValueError:
        raise ValueError(f"{name}={rule}: {text} is not a duration such as 30s, 5m or 1h.") from None
    if not 1 <= seconds <= MAX_WINDOW:
        raise ValueError(f"{name}={rule}: a duration must be from 1s to 31d.")
    return round(seconds * 1000)


def _spell(milliseconds: int) -> str:
    return "".join(_units(milliseconds // 1000)) or f"{milliseconds}ms"


def _units(seconds: int) -> Iterator[str]:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            yield f"{count}{unit}"
