"""What people order of a job, each in one script, so that it meets no half of what a worker does meanwhile."""

from __future__ import annotations

from ..redis_store.scripts import Script

REQUEUE = Script("""
-- Let a job that has ended badly run again. KEYS: job, queue, failed, canceled, untold, set of queues.
-- ARGV: id, now as text, retries.
local status = redis.call("HGET", KEYS[1], "status") or "gone"
if status ~= "failed" and status ~= "stopped" and status ~= "canceled" then return status end
for i = 3, 5 do redis.call("ZREM", KEYS[i], ARGV[1]) end
redis.call("PERSIST", KEYS[1])
redis.call("HDEL", KEYS[1], "crashes", "interrupted", "error", "exc_info")
redis.call("HSET", KEYS[1], "status", "queued", "enqueued_at", ARGV[2], "started_at", "", "ended_at", "")
if tonumber(ARGV[3]) > 0 then redis.call("HSET", KEYS[1], "retries_left", ARGV[3]) end
redis.call("SADD", KEYS[6], KEYS[2])
redis.call("RPUSH", KEYS[2], ARGV[1])
return "done"
""")

DELETE = Script("""
-- Forget a job, wherever it is. KEYS: job, results, untold, then all places; the first of them is a list.
-- ARGV: id.
if redis.call("HGET", KEYS[1], "status") == "started" then return "started" end
redis.call("DEL", KEYS[1], KEYS[2], KEYS[1] .. ":dependents")
redis.call("ZREM", KEYS[3], ARGV[1])
redis.call("LREM", KEYS[4], 0, ARGV[1])
for i = 5, #KEYS do redis.call("ZREM", KEYS[i], ARGV[1]) end
return "done"
""")

CANCEL = Script("""
-- Cancel what has not begun, ask for the stop of what runs; returns the status it had.
-- KEYS: job, stops, canceled, queue, scheduled, deferred. ARGV: id, now as text, kept until.
local status = redis.call("HGET", KEYS[1], "status") or "gone"
if status == "started" then
  redis.call("SADD", KEYS[2], ARGV[1])
elseif status == "queued" or status == "scheduled" or status == "deferred" or status == "rate_limited" then
  redis.call("LREM", KEYS[4], 0, ARGV[1])
  redis.call("ZREM", KEYS[5], ARGV[1])
  redis.call("ZREM", KEYS[6], ARGV[1])
  redis.call("HSET", KEYS[1], "status", "canceled", "ended_at", ARGV[2])
  redis.call("ZADD", KEYS[3], ARGV[3], ARGV[1])
  redis.call("EXPIREAT", KEYS[1], math.floor(tonumber(ARGV[3])))
end
return status
""")
