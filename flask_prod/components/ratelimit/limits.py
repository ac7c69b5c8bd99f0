"""One application's limits: the step that admits a request, and what its answer says about it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flask import Flask, request
from flask_limiter import RateLimitExceeded
from flask_limiter._limits import RuntimeLimit
from limits import RateLimitItemPerSecond
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from flask_prod.core.component import Event, HeaderList, Installed
from flask_prod.core.errors import Unavailable
from flask_prod.core.ports import CounterPort, RedisPort
from flask_prod.core.record import RequestRecord

from .breaches import Breaches
from .clients import address_key, client_key, user_key
from .engine import LocalEngine
from .face import ProdLimiter
from .headers import add_library_headers, add_limit_headers, add_retry_after
from .library import CLOSED_SECONDS, Account, AppLimiter
from .plan import Limits, Plan, every_mark, marks_of, policies_for
from .policy import Policy, describe
from .shared import SharedEngine, pack
from .status import ClientStatus, status_of

_MOST_PLANS = 4096
_MOST_KEYS = 4096
"""Caches are emptied when they are full: simpler than an order of use, and as good for what fits."""


class LimitExceeded(RateLimitExceeded):
    """A policy was exceeded; handlers for 429 and for Flask-Limiter's RateLimitExceeded see it."""

    def __init__(self, policy: Policy, seconds: int) -> None:
        item = RateLimitItemPerSecond(policy.points, policy.window // 1000)
        message = f"Too many requests: {describe(policy)} at most. Try again in {seconds} s."
        super().__init__(RuntimeLimit(item, lambda: "", None, error_message=message))
        self.policy = policy
        self.retry_after = seconds


@dataclass(frozen=True)
class Rules:
    """What the settings of one application say."""

    enabled: bool
    policies: Mapping[str, Policy | None]
    fail: str


class AppLimits:
    """Admits requests of one application; the handle of the ratelimit room."""

    def __init__(self, app: Flask, rules: Rules, face: ProdLimiter, kit: Installed) -> None:
        port: RedisPort | None = kit.handle("redis")
        self._app = app
        self._rules = rules
        self._face = face
        self._emit = kit.emit
        self._redis = port if port is not None and port.configured else None
        self._shared = SharedEngine(self._redis) if self._redis is not None else None
        self._local = LocalEngine()
        self.library = AppLimiter(face, self._redis, app.config, rules.fail)
        if rules.enabled:
            self.library.init_app(app)
        else:
            self.library.enabled = False
        refused: CounterPort = kit.meter.counter(
            "flask_prod_limited_total", "Requests refused by a rate limit.", ("policy",)
        )
        self._breaches = Breaches(refused, kit.emit)
        self._renew()

    def admit(self, record: RequestRecord) -> HTTPException | None:
        """Count a request; return the answer for one that came too often."""
        endpoint = record.endpoint
        plan = self._plans.get((endpoint, record.method) if endpoint else None) or self._plan(record)
        filters = self.library._request_filters
        if filters and any(spare() for spare in filters):
            return None

        identify = self._face.identifier
        user = record.user_id or (identify() if identify is not None else None)
        limits = plan.user if user else plan.public
        if limits.policies:
            who = user_key(user) if user else self._addresses.get(record.client) or self._address(record.client)
            refusal = self._judge(record, limits, who)
            if refusal is not None:
                return refusal
        return self._ask_library() if plan.library else None

    def advertise(self, record: RequestRecord, headers: HeaderList) -> None:
        """Say what is left, and on a refusal when to come again."""
        account: Account | None = record.limits
        if account is None:
            return
        if account.verdict is not None:
            add_limit_headers(headers, account.verdict, account.header)
        if account.library is not None:
            self._advertise_library(record, account, headers)
        if account.retry_after and record.status in (429, 503):
            add_retry_after(headers, account.retry_after)

    def start(self) -> None:
        """Give Redis the script, or warn that every process counts for itself."""
        self._processes = _processes()
        if self._shared is not None:
            try:
                self._shared.load()
            except Unavailable:
                return
        elif self._rules.enabled and (self._processes > 1 or _gunicorn_of_unknown_size()):
            message = (
                "Rate limits are counted in each process by itself, since there is no REDIS_URL: with several "
                "workers a client gets the limit several times over. Set REDIS_URL to count together."
            )
            self._emit(Event("prod.limit.unshared", message, "warning", {"processes": self._processes}))

    def after_fork(self) -> None:
        """Count anew: a child has served nothing yet."""
        self._local.clear()
        self._renew()

    def status(self, client: str) -> ClientStatus:
        """Return what is left for a client under every policy; Unavailable while Redis is away."""
        who = client_key(client)
        policies = self._declared()
        keys = self._keys(who, policies)
        if self._shared is None:
            verdict = self._local.consume(keys, policies, count=False)
        else:
            verdict = self._shared.consume(keys, policies, pack(policies, count=False))
        return status_of(who, self._shared is not None, verdict)

    def reset(self, client: str, policy: str | None = None) -> int:
        """Forget what was counted for a client; return how many counters there were."""
        who = client_key(client)
        names = [policy] if policy else [declared.name for declared in self._declared()]
        keys = [self._key(who, name) for name in names]
        forgotten = sum(self._local.forget(key) for key in keys)
        return forgotten + (self._shared.forget(keys) if self._shared is not None else 0)

    def reset_all(self) -> int:
        """Forget everything that was counted for this application, in Redis by SCAN; return how many counters."""
        count = len(self._local)
        self._local.clear()
        if self._redis is None:
            self.library.storage.reset()
            return count
        patterns = (self._redis.key("limit", "*"), self._redis.key("limiter", "*"))
        return count + self._redis.attempt(
            lambda client: sum(int(client.unlink(key)) for p in patterns for key in client.scan_iter(p, count=500))
        )

    def _declared(self) -> tuple[Policy, ...]:
        """Return every policy that is on: of the settings, and of rules that views spell."""
        known = self._rules.policies
        spelt = policies_for(every_mark(self._app), known)
        return tuple({p.name: p for p in (*spelt, *known.values()) if p is not None}.values())

    def _judge(self, record: RequestRecord, limits: Limits, who: str) -> HTTPException | None:
        """Ask Redis, or this process; keep the verdict for the headers."""
        keys = limits.keys.get(who) or self._make_keys(limits, who)
        try:
            if self._shared is None:
                verdict = self._local.consume(keys, limits.policies)
            else:
                verdict = self._shared.consume(keys, limits.policies, limits.packed)
        except Unavailable:
            if limits.closed:
                record.limits = Account(retry_after=CLOSED_SECONDS)
                return ServiceUnavailable(retry_after=CLOSED_SECONDS)
            if not limits.local:
                return None
            verdict = self._local.consume(self._keys(who, limits.local), limits.local)

        account = record.limits = Account(verdict, limits.header)
        if not verdict.refused:
            return None
        account.retry_after = verdict.retry_after
        policy = verdict.policies[verdict.refused - 1]
        self._breaches.note(who, policy, record)
        return LimitExceeded(policy, account.retry_after)

    def _ask_library(self) -> HTTPException | None:
        """Ask Flask-Limiter for the limits that its own configuration and blueprints declare."""
        try:
            self.library._check_request_limit()
        except (RateLimitExceeded, ServiceUnavailable) as refusal:
            return refusal
        return None

    def _advertise_library(self, record: RequestRecord, account: Account, headers: HeaderList) -> None:
        shown = self.library.show(account)
        if shown is None:
            return
        if self.library._headers_enabled:
            add_library_headers(headers, shown, int(time.time()))
        if record.status == 429 and shown.left == 0:
            account.retry_after = max(account.retry_after, shown.reset)

    def _plan(self, record: RequestRecord) -> Plan:
        """Resolve the limits of an endpoint, once."""
        endpoint = record.endpoint
        blueprints = request.blueprints
        known = self._rules.policies
        marked = policies_for(marks_of(self._app, endpoint, record.method, blueprints), known)
        exempt = self.library.exempts(self._app, endpoint, request.blueprint)
        plan = Plan()
        if self._rules.enabled:
            plan = Plan(
                public=self._limits(None if exempt else known["public"], marked),
                user=self._limits(None if exempt else known["authenticated"], marked),
                library=self.library.wanted_for(blueprints),
            )
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[(endpoint, record.method) if endpoint else None] = plan
        return plan

    def _limits(self, first: Policy | None, marked: Sequence[Policy]) -> Limits:
        """Return limits; endpoints that have the same ones share the object and its keys."""
        policies = tuple({policy.name: policy for policy in (first, *marked) if policy is not None}.values())
        if policies not in self._known_limits:
            self._known_limits[policies] = Limits.of(policies, self._rules.fail, self._processes)
        return self._known_limits[policies]

    def _make_keys(self, limits: Limits, who: str) -> tuple[bytes, ...]:
        if len(limits.keys) >= _MOST_KEYS:
            limits.keys.clear()
        keys = limits.keys[who] = self._keys(who, limits.policies)
        return keys

    def _keys(self, who: str, policies: Sequence[Policy]) -> tuple[bytes, ...]:
        return tuple(self._key(who, policy.name) for policy in policies)

    def _key(self, who: str, name: str) -> bytes:
        # The braces keep all counters of a client in one slot of a cluster, as one script needs them.
        parts = ("limit", f"{{{who}}}", name)
        return (self._redis.key(*parts) if self._redis is not None else ":".join(parts)).encode()

    def _address(self, address: str) -> str:
        if len(self._addresses) >= _MOST_KEYS:
            self._addresses.clear()
        key = self._addresses[address] = address_key(address)
        return key

    def _renew(self) -> None:
        self._processes = _processes()
        self._plans: dict[tuple[str, str] | None, Plan] = {}
        self._known_limits: dict[tuple[Policy, ...], Limits] = {}
        self._addresses: dict[str, str] = {}


def _processes() -> int:
    count = os.environ.get("WEB_CONCURRENCY", "")
    return max(1, int(count)) if count.isdigit() else 1


def _gunicorn_of_unknown_size() -> bool:
    return "WEB_CONCURRENCY" not in os.environ and os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")
