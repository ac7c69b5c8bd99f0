"""Jobs in Redis, in RQ's own keys: how they are taken, ended, healed, and who works."""
