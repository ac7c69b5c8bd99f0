"""Which limits an endpoint has: marks on views, blueprints and applications, resolved once per endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias, TypeVar

from flask import Flask
from flask.sansio.scaffold import Scaffold

from flask_prod.core.errors import ConfigError

from .chosen import Chosen, Count, read_chosen
from .engine import Slot
from .policy import Policy, parse_policy
from .shared import pack

MarkedT = TypeVar("MarkedT", bound=Callable[..., Any] | Scaffold)

_MOST_VARIANTS = 256

_ATTRIBUTE = "__flask_prod_limits__"
"""Where marks lie; functools.wraps carries it upwards, so that decorators above a mark do not hide it."""


class Mark(NamedTuple):
    """What `@prod.limit(...)` leaves on a view or a blueprint; settings know the policy, not the decorator."""

    name: str
    rule: str | None = None
    critical: bool = False
    cost: int | Callable[[], int] | None = None
    """What a request takes from the points, or a function of the request; None is as the policy says."""

    chosen: Chosen | None = None


class Keys(NamedTuple):
    """The counters of one client under some limits: their names, and the command that asks them all.

    `slots` is how this process counts them by itself, empty where that takes thought.
    """

    names: tuple[bytes, ...]
    command: bytes
    slots: tuple[Slot, ...]


Subjects: TypeAlias = str | tuple[str, ...]
"""Whom a request is counted for: one subject for all limits, or one for each."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one kind of client at one endpoint, and all that can be computed ahead.

    Limits in shadow mode come last; headers do not show them.
    """

    policies: tuple[Policy, ...] = ()
    shown: tuple[Policy, ...] = ()
    local: Limits | None = None
    """What this process alone may give while Redis is away; None lets pass."""

    closed: bool = False
    """Refuse while Redis is away."""

    mixed: bool = False
    """Some policy says whom it counts by."""

    priced: bool = False
    """Some policy's cost is a function of the request."""

    asks_user: bool = False
    """A function of the user's says what a request costs, or whether its answer counts."""

    chosen: tuple[int, ...] = ()
    """Which limits count chosen answers only."""

    plain: bool = False
    """Every request costs the same, is counted when it comes, and may be refused by each limit."""

    packed: bytes = b""
    header: tuple[str, str] = ("RateLimit-Policy", "")
    points: tuple[tuple[str, str], ...] = ()
    """The X-RateLimit-Limit header of each limit in `shown`."""

    state: str = ""
    """The RateLimit header, with places for what is left and for seconds, in the order of `shown`."""

    keys: dict[Subjects, Keys] = field(default_factory=dict, compare=False)
    """The names of the counters by client, made once."""

    variants: dict[tuple[int, ...], Limits] = field(default_factory=dict, compare=False)
    """The same limits at other costs, made once each."""

    @classmethod
    def of(cls, policies: Sequence[Policy], fail: str, processes: int) -> Limits:
        """Compute what follows from the policies; `fail` is RATE_LIMIT_FAIL."""
        fails = [(policy, policy.fail or fail) for policy in policies]
        local = [policy.shared_by(processes) for policy, holds in fails if holds == "local"]
        return replace(
            cls._of(policies),
            local=cls._of(local) if local else None,
            closed=any(holds == "closed" and not policy.shadow for policy, holds in fails),
        )

    @classmethod
    def _of(cls, policies: Sequence[Policy]) -> Limits:
        ordered = tuple(sorted(policies, key=lambda policy: policy.shadow))
        shown = tuple(policy for policy in ordered if not policy.shadow)
        priced = any(policy.price for policy in ordered)
        chosen = tuple(index for index, policy in enumerate(ordered) if policy.chosen is not None)
        return cls(
            policies=ordered,
            shown=shown,
            mixed=any(policy.by for policy in ordered),
            priced=priced,
            chosen=chosen,
            asks_user=priced or any(callable(policy.chosen) for policy in ordered),
            plain=not (priced or chosen) and shown == ordered,
            packed=pack(ordered),
            header=(
                "RateLimit-Policy",
                ", ".join(f'"{p.name}";q={p.points};w={-(-p.window // 1000)}' for p in shown),
            ),
            points=tuple(("X-RateLimit-Limit", str(p.points)) for p in shown),
            state=", ".join(f'"{p.name}";r=%d;t=%d' for p in shown),
        )

    def slots(self, names: Sequence[bytes]) -> tuple[Slot, ...]:
        """Return how counters of these names are counted in this process."""
        if not self.plain:
            return ()
        rows = zip(names, self.policies, self.points, strict=True)
        return tuple((name, p.points, p.window, p.cost, pair) for name, p, pair in rows)

    def local_subjects(self, who: Subjects) -> Subjects:
        """Return whom `local` counts, which may have fewer limits."""
        if self.local is None or isinstance(who, str):
            return who
        by_name = {policy.name: subject for policy, subject in zip(self.policies, who, strict=True)}
        return tuple(by_name[policy.name] for policy in self.local.policies)

    def at_costs(self) -> Limits:
        """Return these limits at what the current request costs."""
        costs = tuple(policy.price() if policy.price else policy.cost for policy in self.policies)
        if costs not in self.variants:
            if len(self.variants) >= _MOST_VARIANTS:
                self.variants.clear()
            self.variants[costs] = self._at(costs)
        return self.variants[costs]

    def _at(self, costs: Sequence[int]) -> Limits:
        policies = [costing(*pair) for pair in zip(self.policies, costs, strict=True)]
        by_name = {policy.name: policy.cost for policy in policies}
        local = self.local and self.local._at([by_name[policy.name] for policy in self.local.policies])
        return replace(self._of(policies), local=local, closed=self.closed)


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


def limit_by(
    name: str,
    rule: str | None = None,
    *,
    critical: bool = False,
    cost: int | Callable[[], int] | None = None,
    count: Count | None = None,
) -> Callable[[MarkedT], MarkedT]:
    """Return the decorator behind `prod.limit` and `prod.limiter.policy`; ValueError for what makes no sense."""
    if rule is not None:
        parse_policy(name, rule)
    if isinstance(cost, int) and cost < 1:
        raise ValueError("cost must be at least 1")
    return lambda target: mark(target, Mark(name, rule, critical, cost, read_chosen(count)))


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


def policies_for(
    marks: Iterator[Mark], known: Mapping[str, Policy | None], *, shadow: bool = False
) -> list[Policy]:
    """Return the policies behind marks, one per name; ConfigError for a name that no setting knows.

    *shadow* puts rules that decorators spell into shadow mode, as `read_policies` does for the others.
    """
    found: dict[str, Policy] = {}
    for one in marks:
        policy = _policy(one, known)
        if policy is None:
            continue
        if shadow:
            policy = replace(policy, shadow=True)
        found[one.name] = _marked(policy, one)
    return list(found.values())


def policy_named(
    name: str, marks: Iterator[Mark], known: Mapping[str, Policy | None], shadow: bool
) -> Policy | None:
    """Return a policy of the settings, or one that a decorator spells; ValueError when there is none."""
    if name in known:
        return known[name]
    rule = next((one.rule for one in marks if one.name == name and one.rule is not None), None)
    if rule is None:
        raise ValueError(f"There is no policy {name!r}; there are {', '.join(known)} and those of decorators.")
    policy = parse_policy(name, rule)
    return policy and replace(policy, shadow=policy.shadow or shadow)


def _marked(policy: Policy, one: Mark) -> Policy:
    """Return a policy as a decorator changes it."""
    price = one.cost if callable(one.cost) else None
    cost = policy.cost if one.cost is None or callable(one.cost) else one.cost
    if cost > policy.points:
        raise ConfigError([f"@limit({one.name!r}) costs {cost} of {policy.points} points: no request passes."])
    fail = "closed" if one.critical else policy.fail
    return replace(policy, cost=cost, fail=fail, price=price, chosen=one.chosen)


def costing(policy: Policy, cost: int) -> Policy:
    """Return a policy at another cost."""
    # More than there is would never pass: it takes all there is. Nothing, and less, is free.
    return replace(policy, cost=max(0, min(int(cost), policy.points)), price=None)


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
