"""Which limits an endpoint has: marks on views, blueprints and applications, resolved once per endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from flask import Flask
from flask.sansio.scaffold import Scaffold

from flask_prod.core.errors import ConfigError

from .policy import Policy, parse_policy
from .shared import pack

MarkedT = TypeVar("MarkedT", bound=Callable[..., Any] | Scaffold)

_ATTRIBUTE = "__flask_prod_limits__"
"""Where marks lie; functools.wraps carries it upwards, so that decorators above a mark do not hide it."""


class Mark(NamedTuple):
    """What `@prod.limit(...)` leaves on a view or a blueprint; settings know the policy, not the decorator."""

    name: str
    rule: str | None
    critical: bool
    cost: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one kind of client at one endpoint, and all that can be computed ahead."""

    policies: tuple[Policy, ...] = ()
    local: tuple[Policy, ...] = ()
    """What this process alone may give while Redis is away."""

    closed: bool = False
    """Refuse while Redis is away."""

    packed: bytes = b""
    header: str = ""
    """The RateLimit-Policy header."""

    keys: dict[str, tuple[bytes, ...]] = field(default_factory=dict, compare=False)
    """The names of the counters by client, made once."""

    @classmethod
    def of(cls, policies: Sequence[Policy], fail: str, processes: int) -> Limits:
        """Compute what follows from the policies; `fail` is RATE_LIMIT_FAIL."""
        return cls(
            policies=tuple(policies),
            local=tuple(p.shared_by(processes) for p in policies if (p.fail or fail) == "local"),
            closed=any((p.fail or fail) == "closed" for p in policies),
            packed=pack(policies),
            header=", ".join(f'"{p.name}";q={p.points};w={-(-p.window // 1000)}' for p in policies),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The limits of an endpoint, for clients known by address and for users; `library` asks Flask-Limiter too."""

    public: Limits = field(default_factory=Limits)
    user: Limits = field(default_factory=Limits)
    library: bool = False


def mark(target: MarkedT, added: Mark) -> MarkedT:
    """Remember a limit on a view, a blueprint or an application; the same one twice is one."""
    before: tuple[Mark, ...] = getattr(target, _ATTRIBUTE, ())
    if added not in before:
        setattr(target, _ATTRIBUTE, (*before, added))
    return target


def marks_of(app: Flask, endpoint: str | None, method: str, blueprints: Sequence[str]) -> Iterator[Mark]:
    """Yield the marks that hold for an endpoint: of the application, its blueprints from outside in, its view."""
    yield from _marks(app)
    for name in reversed(blueprints):
        yield from _marks(app.blueprints.get(name))
    view = app.view_functions.get(endpoint) if endpoint else None
    yield from _marks(view)
    view_class = getattr(view, "view_class", None)
    yield from _marks(getattr(view_class, method.lower(), None))


def every_mark(app: Flask) -> Iterator[Mark]:
    """Yield the marks of a whole application."""
    yield from _marks(app)
    for blueprint in app.blueprints.values():
        yield from _marks(blueprint)
    for view in app.view_functions.values():
        yield from _marks(view)
        view_class = getattr(view, "view_class", None)
        for method in getattr(view_class, "methods", None) or ():
            yield from _marks(getattr(view_class, method.lower(), None))


def policies_for(marks: Iterator[Mark], known: Mapping[str, Policy | None]) -> list[Policy]:
    """Return the policies behind marks, one per name; ConfigError for a name that no setting knows."""
    found: dict[str, Policy] = {}
    for one in marks:
        policy = _policy(one, known)
        if policy is None:
            continue
        if one.cost > policy.points:
            raise ConfigError(
                [f"@limit({one.name!r}) costs {one.cost} of {policy.points} points: no request passes."]
            )
        found[one.name] = replace(policy, cost=one.cost, fail="closed" if one.critical else policy.fail)
    return list(found.values())


def _policy(one: Mark, known: Mapping[str, Policy | None]) -> Policy | None:
    if one.name in known:
        return known[one.name]
    if one.rule is None:
        raise ConfigError(
            [f"@limit({one.name!r}) names no policy; there are {', '.join(known)}. Add it to RATE_LIMIT_POLICIES."]
        )
    return parse_policy(one.name, one.rule)


def _marks(target: object) -> Iterator[Mark]:
    """Yield the marks of a function or scaffold; functions are searched below wrappers that hide attributes."""
    for _ in range(64):
        found: tuple[Mark, ...] | None = getattr(target, _ATTRIBUTE, None)
        if found is not None:
            yield from found
            return
        target = getattr(target, "__wrapped__", None)
        if target is None:
            return
