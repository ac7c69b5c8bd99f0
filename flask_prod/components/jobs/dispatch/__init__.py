"""From a call to a job that is kept: what it carries, what is refused, and RQ's own Job below it."""
