"""What must happen in Redis at once or not at all, in RQ's own keys and fields."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from redis import Redis
from redis.exceptions import NoScriptError


@dataclass(frozen=True)
class Script:
    """A Lua script that works with any client; sends its text only to a server that does not have it yet."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)

    def run(self, client: Redis, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run the script and return its answer."""
        try:
            return client.evalsha(self.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *arguments)


Call: TypeAlias = tuple[Script, Sequence[str], Sequence[Any]]


def run_all(client: Redis, calls: Sequence[Call]) -> list[Any]:
    """Run several scripts in one round trip; return their answers in order."""
    with client.pipeline(transaction=False) as pipe:
        for script, keys, arguments in calls:
            pipe.evalsha(script.sha, len(keys), *keys, *arguments)
        answers = pipe.execute(raise_on_error=False)
    for place, (answer, call) in enumerate(zip(answers, calls, strict=True)):
        if isinstance(answer, NoScriptError):
            answers[place] = call[0].run(client, call[1], call[2])
        elif isinstance(answer, Exception):
            raise answer
    return answers


def records_of(client: Redis, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
    """Read several hashes in one round trip; what is no hash counts as an empty one."""
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(key)
        return [{} if isinstance(answer, Exception) else answer for answer in pipe.execute(raise_on_error=False)]


ENQUEUE_DUE = Script("""
-- Move scheduled jobs that are due to their queue. RQ does this in a process of its own, under a lock that
-- outlives its dead holder by a minute; one atomic step needs neither.
-- KEYS: scheduled set, queue list. ARGV: now, limit, prefix of job keys, now as text.
local due = redis.call("ZRANGEBYSCORE", KEYS[1], 0, ARGV[1], "LIMIT", 0, ARGV[2])
for _, id in ipairs(due) do
  redis.call("ZREM", KEYS[1], id)
  if redis.call("EXISTS", ARGV[3] .. id) == 1 then
    redis.call("HSET", ARGV[3] .. id, "status", "queued", "enqueued_at", ARGV[4])
    redis.call("RPUSH", KEYS[2], id)
  end
end
return #due
""")


TAKE = Script("""
-- Take the first job of the first list that has one: out of its list and into the running ones in one step.
-- KEYS: n lists, n sets of running jobs, n sets of failed ones.
-- ARGV: prefix of job keys, prefix of markers, token, end of the lease, worker, now as text, failed until,
-- prefix of RQ's rate limits.
local n = #KEYS / 3
-- A job with a limit needs a slot of RQ's registry, from wherever it came to its queue; without one it is held
-- back there, until a slot is given back. Time stands still in a script, so those held are counted: oldest first.
local counted = 0
local function held(id, key, limit, most)
  local allowed = ARGV[8] .. ":" .. limit .. ":allowed"
  if redis.call("ZSCORE", allowed, id) then return false end
  redis.call("SADD", ARGV[8] .. "-keys", limit)
  redis.call("HSET", ARGV[8] .. ":" .. limit, "concurrency", most)
  local time = redis.call("TIME")
  local moment = time[1] + (time[2] + counted) / 1000000
  counted = counted + 1
  if redis.call("ZCARD", allowed) < most then
    redis.call("ZADD", allowed, moment, id)
    return false
  end
  redis.call("ZADD", ARGV[8] .. ":" .. limit .. ":rate_limited", moment, id)
  redis.call("HSET", key, "status", "rate_limited")
  return true
end
for i = 1, n do
  for _ = 1, 100 do
    local id = redis.call("LPOP", KEYS[i])
    if not id then break end
    local key = ARGV[1] .. id
    local record = redis.pcall("HGETALL", key)
    if record.err then
      redis.call("ZADD", KEYS[2 * n + i], ARGV[7], id)
    elseif #record > 0 then
      local status, idempotent, limit, most
      for f = 1, #record, 2 do
        if record[f] == "status" then status = record[f + 1] end
        if record[f] == "idempotent" then idempotent = record[f + 1] end
        if record[f] == "rate_limit_key" then limit = record[f + 1] end
        if record[f] == "rate_limit_concurrency" then most = tonumber(record[f + 1]) end
      end
      local over = status == "finished" or status == "canceled" or status == "stopped"
      if idempotent == "1" and redis.call("EXISTS", ARGV[2] .. id) == 1 then
        redis.call("HSET", key, "status", "finished")
        over = true
      end
      if not over and limit and most then over = held(id, key, limit, most) end
      if not over then
        redis.call("ZADD", KEYS[n + i], ARGV[4], id .. ":" .. ARGV[3])
        redis.call("HSET", key, "status", "started", "started_at", ARGV[6], "last_heartbeat", ARGV[6],
          "worker_name", ARGV[5])
        return {i - 1, id, record}
      end
    end
  end
end
return false
""")

FINISH = Script("""
-- Write down that a job ended well; 0 when its lease was lost, 2 when it repeats or others wait for it: then
-- nothing was done.
-- KEYS: running, job, results, finished, jobs that depend on it, queue list, marker.
-- ARGV: id:token, id, now as text, now, seconds to keep, seconds of the marker or 0, "anyhow" or
-- "repeat" or "", fields of the result ...
if ARGV[7] == "repeat" or (ARGV[7] == "" and redis.call("EXISTS", KEYS[5]) == 1) then return 2 end
if redis.call("ZREM", KEYS[1], ARGV[1]) == 0 then
  -- It was given up for lost; if nobody has begun it again, nobody needs to.
  if redis.call("HGET", KEYS[2], "status") ~= "queued" then return 0 end
  if redis.call("LREM", KEYS[6], 1, ARGV[2]) == 0 then return 0 end
end
if ARGV[6] ~= "0" then redis.call("SET", KEYS[7], "1", "EX", ARGV[6]) end
local ttl = tonumber(ARGV[5])
if ttl == 0 then
  redis.call("DEL", KEYS[2], KEYS[3])
  return 1
end
redis.call("HSET", KEYS[2], "status", "finished", "ended_at", ARGV[3], "last_heartbeat", ARGV[3])
redis.call("XADD", KEYS[3], "MAXLEN", 10, "*", unpack(ARGV, 8))
if ttl < 0 then
  redis.call("ZADD", KEYS[4], "+inf", ARGV[2])
  return 1
end
redis.call("EXPIRE", KEYS[3], ttl)
redis.call("EXPIRE", KEYS[2], ttl)
redis.call("ZADD", KEYS[4], ARGV[4] + ttl, ARGV[2])
return 1
""")

PUT_BACK = Script("""
-- Put a running job where it is tried again; 0 when its lease was lost.
-- KEYS: running, job, queue list, scheduled. ARGV: id:token, id, due time, "front" or "back", what to count or
-- "", field, value ...
if redis.call("ZREM", KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call("HSET", KEYS[2], unpack(ARGV, 6))
if ARGV[5] ~= "" then redis.call("HINCRBY", KEYS[2], ARGV[5], 1) end
if ARGV[4] == "front" then
  redis.call("LPUSH", KEYS[3], ARGV[2])
elseif ARGV[4] == "back" then
  redis.call("RPUSH", KEYS[3], ARGV[2])
else
  redis.call("ZADD", KEYS[4], ARGV[3], ARGV[2])
end
return 1
""")

BURY = Script("""
-- Put a running job among the dead; 0 when its lease was lost.
-- KEYS: running, job, failed, results, untold.
-- ARGV: id:token, id, now, seconds to keep, number of result fields, result fields ..., job fields ...
if redis.call("ZREM", KEYS[1], ARGV[1]) == 0 then return 0 end
local ttl, results = tonumber(ARGV[4]), tonumber(ARGV[5])
redis.call("HSET", KEYS[2], unpack(ARGV, 6 + results))
redis.call("XADD", KEYS[4], "MAXLEN", 10, "*", unpack(ARGV, 6, 5 + results))
if ttl < 0 then
  redis.call("ZADD", KEYS[3], "+inf", ARGV[2])
else
  redis.call("ZADD", KEYS[3], ARGV[3] + ttl, ARGV[2])
  redis.call("EXPIRE", KEYS[2], ttl)
  redis.call("EXPIRE", KEYS[4], ttl)
end
redis.call("ZADD", KEYS[5], ARGV[3], ARGV[2])
return 1
""")

BEAT = Script("""
-- Prolong the leases of living processes; returns what they run.
-- KEYS: sets of running jobs. ARGV: end of the lease, tokens ...
local mine = {}
for i = 2, #ARGV do mine[ARGV[i]] = true end
local found = {}
for _, key in ipairs(KEYS) do
  for _, member in ipairs(redis.call("ZRANGE", key, 0, -1)) do
    local colon = string.find(member, ":", 1, true)
    if colon and mine[string.sub(member, colon + 1)] then
      redis.call("ZADD", key, "XX", ARGV[1], member)
      found[#found + 1] = member
    end
  end
end
return found
""")

GIVE_BACK = Script("""
-- Deal with what a process held that is gone: by its token, or, when that is empty, by leases that have ended.
-- KEYS: n sets of running jobs, n queue lists, n failed, untold. ARGV: token, now, now as text, prefix of job
-- keys, prefix of results, fate (crash, released, stopped), crashes allowed, seconds to keep the dead, error,
-- reason, the same for the job's record, the same for its results.
local n = (#KEYS - 1) / 3
local done = {}
local function bury(i, id, key, status, kind)
  local ttl = tonumber(redis.call("HGET", key, "failure_ttl") or ARGV[8]) or tonumber(ARGV[8])
  redis.call("HSET", key, "status", status, "ended_at", ARGV[3], "error", ARGV[9], "exc_info", ARGV[11])
  redis.call("XADD", ARGV[5] .. id, "MAXLEN", 10, "*", "type", kind, "worker_name", "", "exc_string", ARGV[12])
  if ttl < 0 then
    redis.call("ZADD", KEYS[2 * n + i], "+inf", id)
  else
    redis.call("ZADD", KEYS[2 * n + i], ARGV[2] + ttl, id)
    redis.call("EXPIRE", key, ttl)
    redis.call("EXPIRE", ARGV[5] .. id, ttl)
  end
end
for i = 1, n do
  local members
  if ARGV[1] == "" then
    members = redis.call("ZRANGEBYSCORE", KEYS[i], "-inf", ARGV[2], "LIMIT", 0, 500)
  else
    members = redis.call("ZRANGE", KEYS[i], 0, -1)
  end
  for _, member in ipairs(members) do
    local colon = string.find(member, ":", 1, true) or #member + 1
    local id, token = string.sub(member, 1, colon - 1), string.sub(member, colon + 1)
    if ARGV[1] == "" or string.sub(token, 1, #ARGV[1]) == ARGV[1] then
      redis.call("ZREM", KEYS[i], member)
      local key = ARGV[4] .. id
      local fate = "gone"
      if redis.call("HGET", key, "status") == "started" then
        fate = ARGV[6]
        if fate == "crash" and redis.call("HINCRBY", key, "crashes", 1) >= tonumber(ARGV[7]) then
          fate = "dead"
          bury(i, id, key, "failed", 2)
          redis.call("ZADD", KEYS[3 * n + 1], ARGV[2], id)
        elseif fate == "stopped" then
          bury(i, id, key, "stopped", 3)
        else
          if fate == "released" then redis.call("HINCRBY", key, "interrupted", 1) end
          redis.call("HSET", key, "status", "queued", "started_at", "")
          redis.call("LPUSH", KEYS[n + i], id)
        end
      end
      done[#done + 1] = id .. ":" .. fate
    end
  end
end
return done
""")

RESCUE = Script("""
-- Put a job that a plain `rq worker` took and never began back to the front of its queue; forget one that is gone.
-- KEYS: intermediate list, queue list, job. ARGV: id.
if redis.call("HGET", KEYS[3], "status") == "started" then return 0 end
if redis.call("LREM", KEYS[1], 1, ARGV[1]) == 0 then return 0 end
if redis.call("EXISTS", KEYS[3]) == 0 then return 0 end
redis.call("LPUSH", KEYS[2], ARGV[1])
return 1
""")
