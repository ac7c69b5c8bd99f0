"""Database, Redis and cache: whether they hold what production puts on them."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask_prod.review.rule import ERROR, INFO, WARNING, Evidence, Evidences, rule
from flask_prod.review.subject import Subject
from flask_prod.review.views import asks_session, cached, varies_by_visitor, views

from .transport import host_of

_SUPERUSERS = ("postgres", "root", "sa", "rdsadmin", "cloudsqlsuperuser")


@rule(
    "P401", WARNING, "The data lies in an SQLite file",
    remedy="DATABASE_URL=postgresql+psycopg://user:password@host/name, or a reason for one host with one disk.",
)  # fmt: skip
def sqlite(subject: Subject) -> Evidences:
    """One process writes at a time, another host does not see it, and a container loses it with its disk."""
    key, url = subject.database
    if url.startswith("sqlite"):
        yield Evidence(f"{key} names an SQLite file", key)
    elif not url and subject.has("DATABASE_URL") and subject.uses_database:
        yield Evidence("DATABASE_URL is empty, so that a file in the instance folder is used", "DATABASE_URL")


@rule(
    "P402", WARNING, "Each process counts limits and caches alone",
    remedy="REDIS_URL=rediss://:password@host:6379/0.",
)  # fmt: skip
def no_redis(subject: Subject) -> Evidences:
    """A limit of 100 is then 100 for each process and host, and an invalidated page lives on in the others."""
    if not subject.has("REDIS_URL") or subject.get("REDIS_URL") or not subject.get("RATE_LIMIT_ENABLED"):
        return
    if subject.serving.workers > 1:
        yield Evidence(f"REDIS_URL is empty, and {subject.serving.workers} workers serve", "REDIS_URL")


@rule(
    "P403", WARNING, "Redis has no password",
    remedy="Give it one (requirepass, or an ACL user), and put it into REDIS_PASSWORD or REDIS_URL.",
)  # fmt: skip
def open_redis(subject: Subject) -> Evidences:
    """Whoever reaches the port reads the cache, takes away limits and writes jobs that your workers run."""
    url = subject.text("REDIS_URL")
    host = host_of(url)
    if not url or not host or host in ("localhost", "127.0.0.1", "::1") or subject.text("REDIS_PASSWORD"):
        return
    if not urlsplit(url).password and not subject.get("REDIS_TLS_CERT"):
        yield Evidence(f"REDIS_URL names {host} without a password, and REDIS_PASSWORD is empty", "REDIS_PASSWORD")


@rule(
    "P404", WARNING, "A statement may run for ever",
    remedy="DATABASE_STATEMENT_TIMEOUT=30s.",
)  # fmt: skip
def endless_statements(subject: Subject) -> Evidences:
    """One slow query then holds its connection and its locks until somebody looks."""
    url = subject.database[1]
    if url and not url.startswith("sqlite") and subject.get("DATABASE_STATEMENT_TIMEOUT") == 0:
        yield Evidence(subject.said("DATABASE_STATEMENT_TIMEOUT"), "DATABASE_STATEMENT_TIMEOUT")


@rule(
    "P405", WARNING, "The service is the database's superuser",
    remedy="Make an account that owns only this database, and put it into DATABASE_URL.",
)  # fmt: skip
def superuser(subject: Subject) -> Evidences:
    """One injected statement then reads every database of the server, and files of its host."""
    key, url = subject.database
    user = urlsplit(url).username if url and not url.startswith("sqlite") else None
    if user in _SUPERUSERS:
        yield Evidence(f"{key} signs in as {user}", key)


@rule(
    "P406", ERROR, "Cached values are pickles in a shared place",
    remedy="Leave CACHE_TYPE out: the kit's back ends store JSON.",
)  # fmt: skip
def pickles(subject: Subject) -> Evidences:
    """Whoever can write there runs code in every worker that reads it."""
    kind = str(subject.config("CACHE_TYPE") or "").lower()
    if "memcached" in kind or "uwsgi" in kind:
        yield Evidence(f"CACHE_TYPE is {kind}", "CACHE_TYPE")


@rule(
    "P407", ERROR, "Sessions are pickles in a shared place",
    remedy='SESSION_SERIALIZATION_FORMAT="msgpack" with Flask-Session 0.7, or Flask\'s own signed cookie.',
)  # fmt: skip
def pickled_sessions(subject: Subject) -> Evidences:
    """Flask-Session before 0.7 unpickles what it finds: whoever writes to that Redis or disk runs code here."""
    from .known import installed

    kind = str(subject.config("SESSION_TYPE") or "null").lower()
    version = installed("Flask-Session")
    if kind != "null" and version is not None and version < (0, 7):
        yield Evidence(f"SESSION_TYPE is {kind} with Flask-Session {'.'.join(map(str, version))}", "SESSION_TYPE")


@rule(
    "P408", INFO, "Hosts do not hear of one another's invalidations",
    remedy="CACHE_BACKEND=tiered keeps the speed of memory over Redis; or a silence that says: one host.",
)  # fmt: skip
def lonely_cache(subject: Subject) -> Evidences:
    """What one host forgets lives on in the caches of the others, until it is too old."""
    if subject.get("CACHE_BACKEND") in ("memory", "file") and subject.get("REDIS_URL"):
        yield Evidence(f"{subject.said('CACHE_BACKEND')}, and there is a REDIS_URL", "CACHE_BACKEND")


@rule(
    "P409", WARNING, "A cached page asks who the visitor is",
    remedy='Take @cached away, cache what the view reads by @memoize, or say vary=["Cookie"]: docs/cache.md.',
)  # fmt: skip
def personal_pages(subject: Subject) -> Evidences:
    """With a key of your own, or with Flask-Caching alone, one visitor gets another one's page; else the kit keeps
    no page of anybody with a session, and the view is computed for each of them."""
    for endpoint, path, _methods, view in views(subject.app) if subject.app is not None else ():
        layer, name = cached(view), asks_session(view)
        if layer is not None and name and not varies_by_visitor(layer):
            yield Evidence(f"the view {endpoint} ({path}) is cached, and its code names {name}")


RULES = (
    sqlite, no_redis, open_redis, endless_statements, superuser, pickles, pickled_sessions, lonely_cache,
    personal_pages,
)  # fmt: skip
