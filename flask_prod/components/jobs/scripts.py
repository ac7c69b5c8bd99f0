"""What must happen in Redis at once or not at all, in RQ's own keys and fields."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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


ACCEPT = Script("""
-- Store a job once, however often a client whose connection broke sends it again.
-- KEYS: job, queue list or scheduled set, set of queues. ARGV: id, due time or "", queue key, field, value ...
if redis.call("EXISTS", KEYS[1]) == 1 then return 0 end
redis.call("HSET", KEYS[1], unpack(ARGV, 4))
if ARGV[2] == "" then
  redis.call("RPUSH", KEYS[2], ARGV[1])
else
  redis.call("ZADD", KEYS[2], ARGV[2], ARGV[1])
end
redis.call("SADD", KEYS[3], ARGV[3])
return 1
""")

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

RESCUE = Script("""
-- Put a job that was taken and never begun back to the front of its queue; forget one that is gone.
-- KEYS: intermediate list, queue list, job. ARGV: id.
if redis.call("LREM", KEYS[1], 1, ARGV[1]) == 0 then return 0 end
if redis.call("EXISTS", KEYS[3]) == 0 then return 0 end
redis.call("LPUSH", KEYS[2], ARGV[1])
return 1
""")
