"""Where one application counts: in Redis, from a lease, or in this process; and under which names."""

from __future__ import annotations

from collections.abc import Sequence

from flask_prod.core.ports import RedisPort

from .engine import COUNT, LOOK, SETTLE, LocalEngine, Slot, Standing, Verdict
from .leases import Leases, first_of
from .plan import Keys, Limits, Subjects
from .policy import Policy
from .shared import SharedEngine, command_for, pack

_MOST_KEYS = 4096
"""A cache is emptied when it is full: simpler than an order of use, and as good for what fits."""


class Counters:
    """The counters of one application; `lease` is RATE_LIMIT_LEASE."""

    def __init__(self, redis: RedisPort | None, lease: int, processes: int) -> None:
        self._redis = redis
        self._lease = lease
        self.shared = SharedEngine(redis) if redis is not None else None
        self.local = LocalEngine()
        self.share_with(processes)

    def share_with(self, processes: int) -> None:
        """Say how many processes share the limits."""
        self._leases = Leases(self._lease, processes) if self._lease > 1 and self.shared is not None else None

    def take(self, limits: Limits, who: Subjects) -> Standing | None:
        """Count a request that needs no thought in this process; None for any other, which is to be consumed."""
        slots = (limits.keys.get(who) or self._make_keys(limits, who)).slots
        return self.local.take(slots) if slots else None

    def slots_of(self, limits: Limits, who: Subjects) -> tuple[Slot, ...]:
        """Return how a client's requests are counted in this process; empty where that takes thought, or Redis."""
        return () if self.shared is not None else (limits.keys.get(who) or self._make_keys(limits, who)).slots

    def consume(self, limits: Limits, who: Subjects) -> Verdict:
        """Count a request against all of its limits; Unavailable while Redis is away."""
        keys = limits.keys.get(who) or self._make_keys(limits, who)
        if self.shared is None:
            return self.local.consume(keys.names, limits.policies)
        if self._leases is not None and limits.plain:
            return self._consume_leased(self._leases, self.shared, limits, keys)
        return self.shared.consume(keys.command, limits.policies)

    def consume_here(self, limits: Limits, who: Subjects) -> Verdict:
        """Count a request in this process alone."""
        keys = limits.keys.get(who) or self._make_keys(limits, who)
        return self.local.consume(keys.names, limits.policies)

    def settle(self, policies: Sequence[Policy], names: Sequence[bytes], *, here: bool) -> Verdict:
        """Count an answer that was chosen to count; Unavailable while Redis is away, unless counted *here*."""
        if here or self.shared is None:
            return self.local.consume(names, policies, SETTLE)
        return self.shared.consume(command_for(names, pack(policies, SETTLE)), policies)

    def ask(self, client: str, policies: Sequence[Policy], mode: int = LOOK) -> Verdict:
        """Look at, or count for, one client under some policies; Unavailable while Redis is away."""
        names = self.names(client, policies)
        if self.shared is None:
            return self.local.consume(names, policies, mode)
        return self.shared.consume(command_for(names, pack(policies, mode)), policies)

    def ask_here(self, client: str, policy: Policy) -> Verdict:
        """Count for one client in this process alone."""
        return self.local.consume(self.names(client, (policy,)), (policy,), COUNT)

    def forget(self, client: str, policies: Sequence[Policy]) -> int:
        """Forget what was counted for one client; return how many counters there were."""
        names = self.names(client, policies)
        self._forget_leases()
        forgotten = sum(self.local.forget(name) for name in names)
        return forgotten + (self.shared.forget(names) if self.shared is not None else 0)

    def forget_all(self) -> int:
        """Forget everything, in Redis by SCAN, with what Flask-Limiter counted there; return how many counters."""
        count = len(self.local)
        self.local.clear()
        self._forget_leases()
        if self._redis is None:
            return count
        patterns = (self._redis.key("limit", "*"), self._redis.key("limiter", "*"))
        return count + self._redis.attempt(
            lambda client: sum(int(client.unlink(key)) for p in patterns for key in client.scan_iter(p, count=500))
        )

    def names(self, who: Subjects, policies: Sequence[Policy]) -> tuple[bytes, ...]:
        """Return the keys of some counters."""
        subjects = (who,) * len(policies) if isinstance(who, str) else who
        return tuple(self._name(*pair) for pair in zip(subjects, policies, strict=True))

    def _name(self, subject: str, policy: Policy) -> bytes:
        # The braces keep all counters of a client in one slot of a cluster, as one script needs them.
        parts = ("limit", f"{{{subject}}}", policy.prefix or policy.name)
        return (self._redis.key(*parts) if self._redis is not None else ":".join(parts)).encode()

    def _make_keys(self, limits: Limits, who: Subjects) -> Keys:
        if len(limits.keys) >= _MOST_KEYS:
            limits.keys.clear()
        names = self.names(who, limits.policies)
        keys = limits.keys[who] = Keys(names, command_for(names, limits.packed), limits.slots(names))
        return keys

    def _consume_leased(self, leases: Leases, shared: SharedEngine, limits: Limits, keys: Keys) -> Verdict:
        spent = leases.spend(keys.names)
        if isinstance(spent, Verdict):
            return spent
        if not spent:
            return shared.consume(keys.command, limits.policies)
        begun = leases.now()
        many = keys.command if spent == 1 else command_for(keys.names, pack(limits.policies, COUNT, spent))
        verdict = None
        try:
            verdict = shared.consume(many, limits.policies)
        finally:
            leases.keep(keys.names, verdict, begun, spent)
        return first_of(verdict)

    def _forget_leases(self) -> None:
        if self._leases is not None:
            self._leases.clear()
