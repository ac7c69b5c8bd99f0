"""What other rooms hold of Redis: clients by purpose, keys in a namespace, and calls behind the breaker."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import redis

from flask_prod.core.component import Event
from flask_prod.core.errors import NotInstalled, Unavailable
from flask_prod.core.ports import NO_SPAN, Meter, NoTracer, Tracer

from .address import shown
from .clients import any_pool, build_client, close, renew
from .cluster import ClusterClient
from .engine import Breaker
from .failures import AWAY, BROKEN, NodeAway, NoneFree, Starved, is_refusal
from .listener import Listener, to_changes, to_channel
from .outage import Outage, degraded_gauge
from .settings import RedisSettings
from .upkeep import Upkeep
from .wire import Word, pack_words

ResultT = TypeVar("ResultT")

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
"""Upper bounds in seconds: a call takes 0.1 ms on the same machine, and has 0.1 s at most."""

_USUAL = ("ConnectionError", "TimeoutError")
"""Failures that are shown as zero from the beginning."""

_REST = 0.1
"""Seconds without a wait after one in vain: a request asks for limits, a cached page, a lock, and pays once."""

_UNLOCK = "return redis.call('get',KEYS[1])==ARGV[1] and redis.call('del',KEYS[1]) or 0"
_PROLONG = "return redis.call('get',KEYS[1])==ARGV[1] and redis.call('pexpire',KEYS[1],ARGV[2]) or 0"
"""Only the owner may end or keep a lock: to look and to act is one step."""


class RedisHandle:
    """One application's way to Redis; fulfils `core.ports.RedisPort`."""

    def __init__(
        self,
        settings: RedisSettings,
        namespace: str,
        meter: Meter,
        emit: Callable[[Event], None],
    ) -> None:
        self._settings = settings
        self._prefix = namespace + ":"
        self._probe_key = self.key("redis", "probe")
        self.outage = Outage(degraded_gauge(meter), emit, shown(settings))
        self._seconds = meter.histogram(
            "flask_prod_redis_seconds",
            "Time of calls to Redis that were answered, by command; call is one of several commands.",
            ("command",),
            _BUCKETS,
        )
        self._failures = meter.counter(
            "flask_prod_redis_failures_total", "Calls to Redis that failed.", ("error",)
        )
        if self.configured:
            for error in _USUAL:
                self._failures.show(error)
        self.upkeep = Upkeep(meter, emit)
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._listeners: list[Listener] = []
        self._away: set[str] = set()
        self._rest_until = 0.0
        self.breaker = Breaker(on_change=self._changed)
        self._tracer: Tracer | None = None

    def trace(self, tracer: Tracer, database: int) -> None:
        """Have every call measured as a span; where nothing is traced, calls do not even ask."""
        self._tracer = None if isinstance(tracer, NoTracer) else tracer
        self._place = {"db.system.name": "redis", "db.namespace": str(database)}
        self._told: dict[str, dict[str, str]] = {}

    @property
    def configured(self) -> bool:
        """True when there is a REDIS_URL."""
        return bool(self._settings.url)

    @property
    def degraded(self) -> bool:
        """True while a circuit breaker keeps requests away from the server, or from a node of the cluster."""
        return self.breaker.opened or bool(self._away)

    @property
    def watchable(self) -> bool:
        """True when `watch` works: everywhere but on a cluster."""
        return self.configured and "+cluster://" not in self._settings.url.reveal()[:20].lower()

    @property
    def cause(self) -> str:
        """What went wrong last, as the name of an error; empty when nothing has."""
        return self.outage.cause

    def key(self, *parts: str) -> str:
        """Return a key in this service's namespace: `shop:production:limit:...`."""
        return self._prefix + ":".join(parts)

    def client(self, purpose: str = "request") -> Any:
        """Return the client for a purpose, made on first use; NotInstalled without a REDIS_URL."""
        client = self._clients.get(purpose)
        return client if client is not None else self._build(purpose)

    def attempt(self, call: Callable[[Any], ResultT], name: str = "call") -> ResultT:
        """Run *call* with the request client; Unavailable when the breaker is open or the server fails.

        A ValueError of *call* counts as an answer that makes no sense. *name* is its label in the metrics.
        """
        if self._tracer is not None:
            call = self._traced(self._tracer, call, name)
        breaker = self.breaker
        if breaker.opened:
            return self._probe(call)
        began = time.monotonic()
        try:
            result = call(self.client())
        except BROKEN as error:
            self._note(error, began)
            raise Unavailable(f"Redis failed: {type(error).__name__}") from error
        self._seconds.observe(time.monotonic() - began, name)
        if breaker.failures:
            breaker.succeed()
        return result

    def ask(self, *command: Word) -> Any:
        """Send one command in one round trip; Unavailable on failure, an answer that is an error included.

        `ask("SET", key, data, "PX", 5000)`: bytes, a number, None, or a list of these come back. For 100 ms after
        somebody has waited in vain nobody else waits, so that a request of many commands pays once.
        """
        self._rest()
        packed = pack_words(command)
        name = command[0]
        return self.attempt(lambda client: client.ask(packed), name if isinstance(name, str) else "call")

    def pipeline(self, commands: Iterable[Iterable[Word]]) -> list[Any]:
        """Send several commands in one round trip and return their answers; Unavailable on failure.

        They are no transaction. Where the server answers one of them with an error, that exception is its answer;
        where it answers all of them so, that is a failure.
        """
        self._rest()
        packed = [pack_words(command) for command in commands]
        return self.attempt(lambda client: self._note_refusal(client.ask_many(packed)), "pipeline")

    def lock(self, name: str, seconds: float) -> str | None:
        """Take the lock *name* of this service for so long; return the owner's token, None when somebody has it.

        It ends by itself: a crashed owner blocks nobody for longer. Unavailable on failure.
        """
        token = secrets.token_hex(8)
        taken = self.ask("SET", self.key("lock", name), token, "NX", "PX", max(1, round(seconds * 1000)))
        return None if taken is None else token

    def unlock(self, name: str, token: str) -> bool:
        """Give a lock back; False when it had ended, whoever has it now. Unavailable on failure."""
        return bool(self.ask("EVAL", _UNLOCK, 1, self.key("lock", name), token))

    def prolong(self, name: str, token: str, seconds: float) -> bool:
        """Keep a lock for so long from now; False when it had ended. Unavailable on failure."""
        return bool(self.ask("EVAL", _PROLONG, 1, self.key("lock", name), token, max(1, round(seconds * 1000))))

    def listen(
        self, channel: str, on_message: Callable[[bytes | None], None], on_lost: Callable[[], None]
    ) -> Listener:
        """Hear what is published to *channel* (a whole name: see `key`), in a thread of its own.

        Call it in a serving process (`Contribution.start`), not before a fork; it ends with `close` or `stop`.
        *on_lost* is called whenever messages may have been missed, see `Listener`. It raises nothing when the
        server is away: it keeps trying, and `live` says whether it hears.
        """
        return self._listen(to_channel(channel), on_message, on_lost)

    def watch(
        self, prefix: str, on_change: Callable[[bytes | None], None], on_lost: Callable[[], None]
    ) -> Listener:
        """Hear each key under *prefix* that is written, deleted, evicted or has expired, whoever did it.

        *on_change* gets the key; None stands for all of them (FLUSHALL). Otherwise as `listen`. This is Redis's
        client-side caching (CLIENT TRACKING with BCAST). NotInstalled on a cluster, where each node tells of its
        own keys alone: see `watchable`, and use `listen` there.
        """
        if not self.watchable:
            raise NotInstalled("The nodes of a cluster tell of their own keys alone; use listen() and publish.")
        return self._listen(to_changes(prefix), on_change, on_lost)

    def ping(self) -> None:
        """Ask whether the server is there and takes writes; Unavailable when not."""
        self.attempt(lambda client: client.set(self._probe_key, "1", px=1000))

    def start(self) -> None:
        """Connect once per process, so that no request finds out what can be known now."""
        self.outage.none()
        if not self.configured:
            return
        try:
            self.ping()
        except Unavailable:
            self.breaker.trip()

    def keep(self) -> None:
        """Do what is due in the background, every few seconds: see `upkeep`."""
        if self.configured:
            self.outage.calm()
            self.upkeep.run(dict(self._clients), self.client, self.breaker.opened)

    def after_fork(self) -> None:
        """Begin anew in a child: connections of its own, a closed breaker."""
        self._lock = threading.Lock()
        self.breaker.reset()
        self.outage.reset()
        self.upkeep.leader.resign()
        self._listeners = []  # their threads are the parent's
        self._away = set()
        self._clients = {purpose: client for purpose, client in self._clients.items() if renew(client)}

    def close(self) -> None:
        """Close all connections."""
        self.upkeep.leader.resign()
        with self._lock:
            clients = tuple(self._clients.values())
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.stop()
        for client in clients:
            close(client)

    def _listen(
        self,
        subscribe: Callable[[Any], None],
        on_message: Callable[[bytes | None], None],
        on_lost: Callable[[], None],
    ) -> Listener:
        listener = Listener(
            lambda: any_pool(self.client("listen")).make_connection(), subscribe, on_message, on_lost
        )
        with self._lock:
            self._listeners.append(listener)
        return listener

    @property
    def _clustered(self) -> bool:
        return isinstance(self._clients.get("request"), ClusterClient)

    def _build(self, purpose: str) -> Any:
        if not self.configured:
            raise NotInstalled("There is no REDIS_URL; set it to redis://host:6379/0 to use Redis.")
        with self._lock:
            if purpose not in self._clients:
                self._clients[purpose] = build_client(self._settings, purpose, self._node_changed)
            return self._clients[purpose]

    def _traced(self, tracer: Tracer, call: Callable[[Any], ResultT], name: str) -> Callable[[Any], ResultT]:
        """Return *call* within a span of its command's name, never its keys; itself in an unsampled request."""
        told = self._told.get(name)
        if told is None:
            told = self._told[name] = {**self._place, "db.operation.name": name.upper()}
        span = tracer.span(told["db.operation.name"], "client", told)
        if span is NO_SPAN:
            return call

        def measured(client: Any) -> ResultT:
            with span:
                return call(client)

        return measured

    def _probe(self, call: Callable[[Any], ResultT]) -> ResultT:
        """Try once per second while open: a write of our own, then the call; both must succeed.

        The write tells a server that only reads (out of memory, a replica) from one that works.
        """
        if not self.breaker.admit():
            raise Unavailable(f"Redis is left alone for a moment: {self.outage.cause}")
        answered = False
        try:
            client = self.client()
            client.set(self._probe_key, "1", px=1000)
            result = call(client)
            answered = True
        except BROKEN as error:
            self.outage.cause = type(error).__name__
            raise Unavailable(f"Redis failed: {self.outage.cause}") from error
        finally:
            self.breaker.end_probe(answered)
            if not answered:
                self.outage.tell()
        return result

    def _rest(self) -> None:
        if self.breaker.failures and time.monotonic() < self._rest_until:
            raise Unavailable(f"Redis is left alone for a moment: {self.outage.cause}")

    def _note(self, error: Exception, began: float | None = None) -> None:
        self._failures.inc(type(error).__name__)
        if isinstance(error, NoneFree | NodeAway) or (self._clustered and isinstance(error, AWAY)):
            return  # nothing about the server, or noted by the breaker of the node already
        self.outage.cause = type(error).__name__
        if isinstance(error, redis.TimeoutError):
            self._rest_until = time.monotonic() + _REST
        if isinstance(error, redis.ReadOnlyError):
            # Its role has changed: new connections find who has it now, by name or from the sentinels.
            self.client().forget_roles()
        if isinstance(error, redis.ResponseError):
            self.outage.error()
        if is_refusal(error):
            self.breaker.refuse()
        else:
            # Without the processor a process sees no answer in time, whether there is one or not.
            self.breaker.fail(began, 0.5 if isinstance(error, Starved) else 1.0)

    def _note_refusal(self, answers: list[Any]) -> list[Any]:
        """Return answers; a refusal among them counts, since it is about the server and not about one key."""
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if errors and len(errors) == len(answers):
            raise errors[0]
        refusal = next(filter(is_refusal, errors), None)
        if refusal is not None:
            self._note(refusal)
        return answers

    def _node_changed(self, name: str, opened: bool) -> None:
        """Show a node of a cluster that is away, or back."""
        if opened:
            self.outage.cause = f"node {name}"
        before = self.degraded
        (self._away.add if opened else self._away.discard)(name)
        if self.degraded != before:
            self._changed("")

    def _changed(self, _state: str) -> None:
        if self.degraded:
            self.outage.begin()
        else:
            self.outage.end()
