"""One application's limits: the step that admits a request, and what its answer says about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flask import Flask, after_this_request, request
from werkzeug.exceptions import HTTPException

from flask_prod.core.component import HeaderList, Installed
from flask_prod.core.errors import Unavailable
from flask_prod.core.ports import RedisPort
from flask_prod.core.record import RequestRecord, current_record

from .account import SPARED, Account
from .breaches import Breaches
from .clients import EXEMPT, address_key, client_key, lies_in, presented_key, secret_key, user_key
from .counters import Counters
from .declared import Borrowed, Declared
from .engine import COUNT, Verdict
from .headers import add_limit_headers, add_retry_after, standing_of
from .plan import Limits, Plan, Subjects, costing, every_mark, marks_of, policies_for, policy_named
from .policy import MAX_POINTS, Policy
from .refusals import CLOSED_SECONDS, closed, exceeded
from .rules import Rules, process_count, unknown_process_count, unshared
from .settling import chosen_limits, keep_response
from .status import ClientStatus, Decision, decision_of, status_of, uncounted
from .tracks import Tracks

if TYPE_CHECKING:
    from flask_limiter import RateLimitExceeded

    from .face import ProdLimiter
    from .library import AppLimiter

_MOST = 4096
"""Caches are emptied when they are full: simpler than an order of use, and as good for what fits."""


class AppLimits:
    """Admits requests of one application; the handle of the ratelimit room."""

    def __init__(self, app: Flask, rules: Rules, declared: Declared, kit: Installed) -> None:
        port: RedisPort | None = kit.handle("redis")
        redis = port if port is not None and port.configured else None
        self._app = app
        self._rules = rules
        self._asked = declared
        self._emit = kit.emit
        self._processes = process_count()
        self._counters = Counters(redis, rules.lease, self._processes)
        self._borrowed = Borrowed(app, rules, redis, self._note_library)
        if declared.face is not None:
            self._borrowed.build(declared.face)
        refused = kit.meter.counter("flask_prod_limited_total", "Requests refused by a rate limit.", ("policy",))
        shadowed = kit.meter.counter(
            "flask_prod_limit_shadowed_total",
            "Requests that a limit in shadow mode would have refused.",
            ("policy",),
        )
        self._breaches = Breaches("security.limit_breached", refused, kit.emit)
        self._shadows = Breaches("prod.limit.shadowed", shadowed, kit.emit)
        self._renew()

    def admit(self, record: RequestRecord) -> HTTPException | None:
        """Count a request; return the answer for one that came too often."""
        track = record.limits  # of `is_lean`
        return None if isinstance(track, tuple) and self._tracks.count(record, track) else self._admit(record)

    def _admit(self, record: RequestRecord) -> HTTPException | None:
        endpoint = record.endpoint
        face = self._asked.face
        if face is not None and self._borrowed.limiter is None:
            self.library_of(face)
        plan = self._plans.get((endpoint, record.method) if endpoint else None) or self._plan(record)
        who = self._addresses.get(record.client) or self._address(record.client)
        if who is EXEMPT:
            record.limits = SPARED
            return None
        user = record.user_id
        if face is not None:
            filters = face._request_filters
            if filters and any(spare() for spare in filters):
                return None
            if not user and face.identifier is not None:
                user = face.identifier()
        limits = plan.user if user else plan.public
        if limits.policies:
            known = user_key(user) if user else who
            whom: Subjects = self._subjects(record, limits, known, who) if limits.mixed else known
            counters = self._counters
            standing = counters.take(limits, whom) if counters.shared is None else None
            if standing is not None:
                record.limits = Account(limits, standing)
            else:
                refusal = self._judge(record, limits, whom)
                if refusal is not None:
                    return refusal
        return self._borrowed.ask() if plan.library else None

    def is_lean(self, record: RequestRecord) -> bool:
        """Tell whether `admit` needs nothing of Flask: the plan is known, and asks no code of the user."""
        face = self._asked.face
        if face is not None and (face._request_filters or face.identifier or face.key_finder):
            return False
        track = self._tracks.get((record.endpoint, record.method, record.client))
        if track is not None:
            if record.user_id is None:
                record.limits = track
            return True
        plan = self._plans.get((record.endpoint, record.method)) if record.endpoint else None
        if plan is None or plan.library or plan.public.asks_user or plan.user.asks_user:
            return False
        who = self._addresses.get(record.client)
        if who is not EXEMPT:
            self._tracks.learn(record, plan.public, who)
        return True

    def advertise(self, record: RequestRecord, headers: HeaderList) -> None:
        """Say what is left, and on a refusal when to come again; an answer that was chosen counts first."""
        account = record.limits
        if not isinstance(account, Account):  # nobody was counted
            return
        if account.simple and account.limits is not None and account.standing is not None:
            add_limit_headers(headers, account.limits, account.standing)
            return
        if account.pending is not None:
            self._settle(record, account, headers)
        limits, standing = account.limits, account.standing
        if limits is not None:
            if standing is None and account.verdict is not None:
                standing = standing_of(account.verdict, limits)
            if standing is not None:
                add_limit_headers(headers, limits, standing)
        if account.library is not None:
            self._borrowed.advertise(record, account, headers)
        if account.retry_after and record.status in (429, 503):
            add_retry_after(headers, account.retry_after)

    def start(self) -> None:
        """Give Redis the script, or warn that every process counts for itself."""
        self._renew()
        if self._asked.face is not None:
            self.library_of(self._asked.face)
        shared = self._counters.shared
        if shared is not None:
            try:
                shared.load()
            except Unavailable:
                return
        elif self._rules.enabled and (self._processes > 1 or unknown_process_count()):
            self._emit(unshared(self._processes))

    def adopt(self, rules: Rules) -> None:
        """Hold requests from now on to changed rules; what was counted stays counted."""
        # Rules first, then what was derived: who derives in between keeps it where nobody looks any more.
        self._rules = rules
        self._renew()

    def after_fork(self) -> None:
        """Count anew: a child has served nothing yet."""
        self._counters.local.clear()
        self._renew()

    def consume(self, name: str, client: str, cost: int | None = None) -> Decision:
        """Count for a client under one policy; what RATE_LIMIT_FAIL says holds while Redis is away."""
        policy = self._find(name)
        if policy is None or not self._rules.enabled:
            return Decision(name, True, MAX_POINTS, 0, False)
        if cost is not None:
            policy = costing(policy, cost)
        who = client_key(client)
        try:
            verdict = self._counters.ask(who, (policy,), COUNT)
        except Unavailable:
            return self._consume_alone(policy, who)
        return self._decide(policy, who, verdict, self._counters.shared is not None)

    def status(self, client: str) -> ClientStatus:
        """Return what is left for a client under every policy; Unavailable while Redis is away."""
        who = client_key(client)
        return status_of(who, self._counters.shared is not None, self._counters.ask(who, self._declared()))

    def reset(self, client: str, policy: str | None = None) -> int:
        """Forget what was counted for a client; return how many counters there were."""
        found = self._declared() if policy is None else (self._find(policy) or Policy(policy, 1, 1000),)
        return self._counters.forget(client_key(client), found)

    def reset_all(self) -> int:
        """Forget everything that was counted for this application; return how many counters there were."""
        if self._counters.shared is None:
            self._borrowed.reset()
        return self._counters.forget_all()

    def _judge(self, record: RequestRecord, limits: Limits, who: Subjects) -> HTTPException | None:
        """Ask Redis, or this process; keep the verdict for the headers."""
        if limits.priced:
            limits = limits.at_costs()
        here = False
        try:
            verdict = self._counters.consume(limits, who)
        except Unavailable:
            if limits.closed:
                record.limits = account = Account()
                account.retry_after = CLOSED_SECONDS
                return closed()
            if limits.local is None:
                return None
            here, limits, who = True, limits.local, limits.local_subjects(who)
            verdict = self._counters.consume_here(limits, who)

        account = record.limits = Account(limits)
        account.verdict = verdict
        if verdict.shadowed:
            self._note_shadows(record, verdict, who)
        if verdict.refused:
            account.retry_after = verdict.retry_after
            policy = verdict.policies[verdict.refused - 1]
            self._breaches.note(_one(who, verdict.refused - 1), policy, record)
            return exceeded(policy, account.retry_after)
        if limits.chosen:
            account.pending, account.here = who, here
            if any(callable(limits.policies[index].chosen) for index in limits.chosen):
                after_this_request(keep_response(account))
        return None

    def _settle(self, record: RequestRecord, account: Account, headers: HeaderList) -> None:
        """Count an answer under the limits that chose it, and show that in its headers."""
        who, limits, verdict = account.pending, account.limits, account.verdict
        account.pending = None
        if who is None or limits is None or verdict is None:
            return
        chosen = chosen_limits(limits, record, account, headers)
        if not chosen:
            return
        policies = [limits.policies[index] for index in chosen]
        every = self._counters.names(who, limits.policies)
        names = [every[index] for index in chosen]
        try:
            settled = self._counters.settle(policies, names, here=account.here)
        except Unavailable:
            settled = self._counters.settle(policies, names, here=True)
        rows = list(verdict.rows)
        for index, row in zip(chosen, settled.rows, strict=True):
            rows[index] = row
        verdict.rows = rows

    def library_of(self, face: ProdLimiter) -> AppLimiter:
        """Return Flask-Limiter's engine for this application; what was planned without it is planned anew."""
        if self._borrowed.limiter is None:
            self._plans.clear()
            self._tracks.clear()
        return self._borrowed.build(face)

    def _subjects(self, record: RequestRecord, limits: Limits, known: str, address: str) -> tuple[str, ...]:
        """Return whom each limit counts: who has no API key is counted as without, by user or address."""
        found = {"": known, "user": known, "address": address}
        if any(policy.by == "key" for policy in limits.policies):
            face = self._asked.face
            finder = None if face is None else face.key_finder
            secret = finder() if finder is not None else presented_key(record.environ, self._rules.key_headers)
            found["key"] = secret_key(secret) if secret else known
        return tuple(found[policy.by] for policy in limits.policies)

    def _consume_alone(self, policy: Policy, who: str) -> Decision:
        holds = policy.fail or self._rules.fail
        share = policy.shared_by(self._processes)
        if holds != "local":
            return uncounted(policy, holds)
        return self._decide(share, who, self._counters.ask_here(who, share), False)

    def _decide(self, policy: Policy, who: str, verdict: Verdict, shared: bool) -> Decision:
        if verdict.refused or verdict.shadowed:
            (self._breaches if verdict.refused else self._shadows).note(who, policy, None)
        return decision_of(policy, verdict, shared)

    def _note_shadows(self, record: RequestRecord, verdict: Verdict, who: Subjects) -> None:
        for index, policy in enumerate(verdict.policies):
            if verdict.shadowed >> index & 1:
                self._shadows.note(_one(who, index), policy, record)

    def _note_library(self, breach: RateLimitExceeded) -> None:
        item = breach.limit.limit
        policy = Policy(str(item), item.amount, item.get_expiry() * 1000, shadow=True)
        record = current_record()
        self._shadows.note(record.client if record is not None else "", policy, record)

    def _declared(self) -> tuple[Policy, ...]:
        """Return every policy that is on: of the settings, and of rules that views spell."""
        known = self._rules.policies
        spelt = policies_for(every_mark(self._app), known, shadow=self._rules.shadow)
        return tuple({p.name: p for p in (*spelt, *known.values()) if p is not None}.values())

    def _find(self, name: str) -> Policy | None:
        named = self._named
        if name not in named:
            named[name] = policy_named(name, every_mark(self._app), self._rules.policies, self._rules.shadow)
        return named[name]

    def _plan(self, record: RequestRecord) -> Plan:
        """Resolve the limits of an endpoint, once."""
        plans = self._plans  # before the rules: see `adopt`
        endpoint = record.endpoint
        blueprints = request.blueprints
        known = self._rules.policies
        marks = marks_of(self._app, endpoint, record.method, blueprints)
        marked = policies_for(marks, known, shadow=self._rules.shadow)
        exempt = self._borrowed.exempts(endpoint, request.blueprint)
        plan = Plan()
        if self._rules.enabled:
            plan = Plan(
                public=self._limits(None if exempt else known["public"], marked),
                user=self._limits(None if exempt else known["authenticated"], marked),
                library=self._borrowed.wanted_for(blueprints),
            )
        if len(plans) >= _MOST:
            plans.clear()
        plans[(endpoint, record.method) if endpoint else None] = plan
        return plan

    def _limits(self, first: Policy | None, marked: Sequence[Policy]) -> Limits:
        """Return limits; endpoints that have the same ones share the object and its keys."""
        policies = tuple({policy.name: policy for policy in (first, *marked) if policy is not None}.values())
        known = self._known_limits
        if policies not in known:
            known[policies] = Limits.of(policies, self._rules.fail, self._processes)
        return known[policies]

    def _address(self, address: str) -> str:
        addresses = self._addresses
        if len(addresses) >= _MOST:
            addresses.clear()
        exempt = lies_in(address, self._rules.exempt)
        who = addresses[address] = EXEMPT if exempt else address_key(address)
        return who

    def _renew(self) -> None:
        self._processes = process_count()
        self._counters.share_with(self._processes)
        self._plans: dict[tuple[str, str] | None, Plan] = {}
        self._known_limits: dict[tuple[Policy, ...], Limits] = {}
        self._addresses: dict[str, str] = {}
        self._tracks = Tracks(self._counters)
        self._named: dict[str, Policy | None] = {}


def _one(who: Subjects, index: int) -> str:
    return who if isinstance(who, str) else who[index]
