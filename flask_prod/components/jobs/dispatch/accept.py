"""How a dispatched job gets where it is kept: what a dispatch hands over, and the one atomic step in Redis.

A back end other than Redis implements `Keeper`; everything above it stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from rq.defaults import RQ_KEY_PREFIX

from flask_prod.core.errors import Unavailable

from ..backend import CLUSTERED, is_cluster
from ..redis_store.scripts import Script

if TYPE_CHECKING:
    from redis import Redis
    from rq.job import Job

    from flask_prod.core.ports import RedisPort

_PREFIX = f"{RQ_KEY_PREFIX}:"

_BATCH = 200
"""Jobs sent in one round trip; Redis stores as many in less than a tenth of its time limit."""


_LEAD = "jobs-schedules"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of a unique job to be the only one: `key` names what is unique."""

    key: str
    seconds: float
    until: str


@dataclass(frozen=True, slots=True)
class Slot:
    """The moment of a schedule for which a job runs, in whole seconds since 1970."""

    schedule: str
    moment: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One job to be kept: `fields` are those of its record, RQ's and ours."""

    job: Job
    queue: str
    """The queue's name without the namespace."""
    fields: Mapping[str, Any]
    due: datetime | None = None
    front: bool = False
    after: tuple[str, ...] = ()
    group: str = ""
    claim: Claim | None = None
    slot: Slot | None = None
    session: Any = None
    """The SQLAlchemy session in whose transaction it is to be written; None for that of the context."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an order: `job_id` is its own, or that of the job that was there already.

    `kind` is accepted, duplicate, taken (the slot has its job) or missing (`job_id` names a job to wait for that
    does not exist).
    """

    kind: str
    job_id: str


class Keeper(Protocol):
    """Where accepted jobs are kept."""

    batch: int
    """Orders that it takes at a time."""

    def ready(self, name: str) -> None:
        """Raise Unavailable, which says what to set, when there is no place to keep the job of this name in."""

    def accept(self, orders: Sequence[Order]) -> list[Answer]:
        """Keep each job; Unavailable when none of them is known to be kept."""

    def keep_meta(self, job: Job) -> None:
        """Write down `job.meta` of a job that exists."""

    def slots(self) -> dict[str, int]:
        """Return the last slot of each schedule that had one."""

    def pass_slot(self, slot: Slot) -> None:
        """Note that a slot has gone by without a job, unless a later one is noted."""

    def leads(self, seconds: float) -> bool:
        """Take or keep the lead over all workers for so long; false when another one has it."""

    def resign(self) -> None:
        """Give the lead up."""


class RedisKeeper:
    """Keeps jobs in RQ's own keys."""

    batch = _BATCH

    def __init__(self, redis: RedisPort, namespace: str) -> None:
        self._redis = redis
        self._namespace = namespace
        self._slots = f"{namespace}jobs:slots"
        self._lead = ""

    def ready(self, name: str) -> None:
        """Raise Unavailable when there is no Redis to keep the job of this name in."""
        if not self._redis.configured:
            raise Unavailable(
                f"{name} was not accepted: jobs need a Redis. Set REDIS_URL to redis://host:6379/0, or start "
                "the application with `flask prod up`, which brings one."
            )
        if is_cluster(self._redis):
            raise Unavailable(f"{name} was not accepted. {CLUSTERED}")

    def accept(self, orders: Sequence[Order]) -> list[Answer]:
        """Keep each job by one script, all of them in one round trip."""
        if len(orders) == 1:
            keys, arguments = self._call(orders[0])
            return [_read(self._redis.attempt(lambda client: _ACCEPT.run(client, keys, arguments), "EVALSHA"))]
        calls = [self._call(order) for order in orders]
        return self._redis.attempt(lambda client: _accept_all(client, calls), "EVALSHA")

    def keep_meta(self, job: Job) -> None:
        """Write down `job.meta`, unless the record has gone."""
        meta = job._serialize_meta()
        self._redis.attempt(lambda client: _KEEP_META.run(client, [job.key], [meta]), "EVALSHA")

    def slots(self) -> dict[str, int]:
        """Return the last slot of each schedule that had one."""
        found = self._redis.attempt(lambda client: client.hgetall(self._slots), "HGETALL")
        return {name.decode(): int(slot) for name, slot in found.items()}

    def pass_slot(self, slot: Slot) -> None:
        """Note that a slot has gone by without a job."""
        arguments = (slot.schedule, slot.moment)
        self._redis.attempt(lambda client: _PASS.run(client, [self._slots], arguments), "EVALSHA")

    def leads(self, seconds: float) -> bool:
        """Take or keep the lead over all workers for so long."""
        if not self._lead or not self._redis.prolong(_LEAD, self._lead, seconds):
            self._lead = self._redis.lock(_LEAD, seconds) or ""
        return bool(self._lead)

    def resign(self) -> None:
        """Give the lead up."""
        if self._lead:
            self._redis.unlock(_LEAD, self._lead)
            self._lead = ""

    def _call(self, order: Order) -> tuple[list[str], list[Any]]:
        job, origin = order.job, order.job.origin
        place = f"{_PREFIX}queue:{origin}" if order.due is None else f"{_PREFIX}scheduled:{origin}"
        lengths, fields = _packed(order.fields)
        keys = [job.key, place, f"{_PREFIX}queues"]
        arguments: list[Any] = [
            job.id,
            "" if order.due is None else -int(-order.due.timestamp() // 1),
            f"{_PREFIX}queue:{origin}",
            "front" if order.front else "back",
            lengths,
            fields,
        ]
        if order.claim or order.slot or order.group or order.after:
            self._add_conditions(order, keys, arguments)
        return keys, arguments

    def _add_conditions(self, order: Order, keys: list[str], arguments: list[Any]) -> None:
        """Add what most orders do not have."""
        claim, slot = order.claim, order.slot
        keys += [
            f"{_PREFIX}deferred:{order.job.origin}",
            f"{self._namespace}jobs:unique:{claim.key}" if claim else "",
            self._slots if slot else "",
            f"{_PREFIX}group:{self._namespace}{order.group}" if order.group else "",
            f"{_PREFIX}groups",
        ]
        arguments += [
            f"{_PREFIX}job:",
            int(claim.seconds * 1000) if claim else 0,
            claim.until if claim else "",
            slot.schedule if slot else "",
            slot.moment if slot else 0,
            *order.after,
        ]


def _packed(fields: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the lengths of all names and values, and these in one piece: redis-py takes long over each argument.

    RQ reads a field that is missing as it reads an empty one, and writes eight of those.
    """
    parts: list[bytes] = []
    for name, value in fields.items():
        if value is not None and value != "":
            text = value if isinstance(value, str | bytes) else str(value)
            parts += (name.encode(), text.encode() if isinstance(text, str) else text)
    return ",".join([str(len(part)) for part in parts]), b"".join(parts)


def _accept_all(client: Redis, calls: Sequence[tuple[list[str], list[Any]]]) -> list[Answer]:
    """Send several orders in one round trip; the script's text goes first where the server may not have it."""
    with client.pipeline(transaction=False) as pipe:
        pipe.script_load(_ACCEPT.text)
        for keys, arguments in calls:
            pipe.evalsha(_ACCEPT.sha, len(keys), *keys, *arguments)
        return [_read(answer) for answer in pipe.execute()[1:]]


def _read(answer: Any) -> Answer:
    kind, job_id = (part.decode() if isinstance(part, bytes) else str(part) for part in answer)
    return Answer(kind, job_id)


_ACCEPT = Script("""
-- Store a job once, however often a client whose connection broke sends it again.
-- KEYS: job, queue list or scheduled set, set of queues; and for a job with conditions: deferred jobs,
-- claim or "", slots or "", group or "", set of groups.
-- ARGV: id, due time or "", queue key, front or back, lengths of fields and values, these in one piece; and for a
-- job with conditions: prefix of job keys, milliseconds of the claim, its end, schedule, slot, ids to wait for ...
local id, prefix, claim, slots, group = ARGV[1], ARGV[7], KEYS[5] or "", KEYS[6] or "", KEYS[7] or ""
if redis.call("EXISTS", KEYS[1]) == 1 then return {"accepted", id} end
if slots ~= "" then
  local last = redis.call("HGET", slots, ARGV[10])
  if last and tonumber(last) >= tonumber(ARGV[11]) then return {"taken", id} end
end
if claim ~= "" then
  local holder = redis.call("GET", claim)
  if holder then
    local state = redis.call("HMGET", prefix .. holder, "status", "started_at")
    local status, over = state[1], false
    if not status or status == "finished" or status == "failed" or status == "canceled" or status == "stopped" then
      over = true
    elseif ARGV[9] == "started" then
      over = status == "started" or (state[2] and state[2] ~= "")
    end
    if not over then
      if slots ~= "" then redis.call("HSET", slots, ARGV[10], ARGV[11]) end
      return {"duplicate", holder}
    end
  end
end
local unmet = {}
for i = 12, #ARGV do
  local status = redis.call("HGET", prefix .. ARGV[i], "status")
  if not status then return {"missing", ARGV[i]} end
  if status ~= "finished" then unmet[#unmet + 1] = ARGV[i] end
end
local fields, first = {}, 1
for length in string.gmatch(ARGV[5], "%d+") do
  local following = first + tonumber(length)
  fields[#fields + 1] = string.sub(ARGV[6], first, following - 1)
  first = following
end
redis.call("HSET", KEYS[1], unpack(fields))
if claim ~= "" then redis.call("SET", claim, id, "PX", ARGV[8]) end
if slots ~= "" then redis.call("HSET", slots, ARGV[10], ARGV[11]) end
if group ~= "" then
  redis.call("SADD", group, id)
  redis.call("SADD", KEYS[8], string.match(group, ":group:(.*)$"))
end
redis.call("SADD", KEYS[3], ARGV[3])
if #unmet > 0 then
  redis.call("HSET", KEYS[1], "status", "deferred")
  redis.call("ZADD", KEYS[4], redis.call("TIME")[1], id)
  for _, other in ipairs(unmet) do
    redis.call("SADD", prefix .. other .. ":dependents", id)
    redis.call("SADD", prefix .. ":" .. id .. ":dependencies", other)  -- two colons: RQ's own spelling
  end
elseif ARGV[2] ~= "" then
  redis.call("ZADD", KEYS[2], ARGV[2], id)
elseif ARGV[4] == "front" then
  redis.call("LPUSH", KEYS[2], id)
else
  redis.call("RPUSH", KEYS[2], id)
end
return {"accepted", id}
""")

_KEEP_META = Script("""
-- Write a job's meta unless the job has gone. KEYS: job. ARGV: meta.
if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
redis.call("HSET", KEYS[1], "meta", ARGV[1])
return 1
""")

_PASS = Script("""
-- Note that a slot has gone by. KEYS: slots. ARGV: schedule, slot.
local last = redis.call("HGET", KEYS[1], ARGV[1])
if last and tonumber(last) >= tonumber(ARGV[2]) then return 0 end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
return 1
""")
