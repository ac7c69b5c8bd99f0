"""Jobs in a table of the database: written by the caller, relayed to Redis, or run from there without Redis."""
