"""How the service's own servers are set up; asked only with --online, each server once and with a time limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from flask_prod.review.rule import ERROR, WARNING, Evidence, Evidences, rule
from flask_prod.review.subject import Subject

from .asking import within
from .transport import host_of, is_far

AnswerT = TypeVar("AnswerT")

_POSTGRESQL = """
    SELECT current_setting('max_connections')::int,
           (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
           (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())
"""


@dataclass(frozen=True)
class Database:
    """What the database's server says of itself and of our connection; None where it cannot be asked."""

    most: int | None = None
    """max_connections."""

    superuser: bool | None = None
    encrypted: bool | None = None


@dataclass(frozen=True)
class Redis:
    """What the Redis server says of itself."""

    open: bool = False
    """Whoever connects may give commands, without a password."""

    facts: Mapping[str, object] = field(default_factory=dict)
    """`policy`, `maxmemory`, `aof`, `rdb`, as far as they are known; nothing where no jobs are kept on it."""


def max_connections(subject: Subject) -> int | None:
    """Return how many connections the database's server allows, None where that is not known."""
    return _database(subject).most


@rule(
    "P425", WARNING, "Redis lets everybody in",
    remedy="Set requirepass, or `ACL SETUSER default off` and a user of its own, and REDIS_PASSWORD.", online=True,
)  # fmt: skip
def open_redis(subject: Subject) -> Evidences:
    """Whoever reaches the port reads the cache and writes jobs that your workers run; one view that fetches what a
    visitor names reaches it also on this host."""
    if _redis(subject).open:
        yield Evidence("the server's user `default` is on and has no password", "REDIS_PASSWORD")


@rule(
    "P426", ERROR, "Redis drops jobs when its memory is full",
    remedy="maxmemory-policy noeviction there, or a server of its own for the cache.", online=True,
)  # fmt: skip
def evicts(subject: Subject) -> Evidences:
    """To Redis a job is a key like any other: it is gone without a word, and nobody runs it."""
    facts = _redis(subject).facts
    policy = facts.get("policy", "noeviction")
    if facts.get("maxmemory") and policy != "noeviction":
        text = f"jobs are on it, maxmemory is {facts['maxmemory']} and its policy is {policy}"
        yield Evidence(text, "REDIS_URL")


@rule(
    "P427", ERROR, "Redis forgets jobs when it restarts",
    remedy="appendonly yes there, on a disk that outlives the container; or JOBS_OUTBOX=always.", online=True,
)  # fmt: skip
def forgets(subject: Subject) -> Evidences:
    """What waits or is scheduled at that moment is never run."""
    facts = _redis(subject).facts
    outboxed = subject.get("JOBS_OUTBOX") == "always"
    if facts.get("aof") is False and facts.get("rdb") is False and not outboxed:
        yield Evidence("jobs are on it, appendonly is no and nothing is saved", "REDIS_URL")


@rule(
    "P428", WARNING, "The connection to the database is not encrypted",
    remedy="DATABASE_TLS=verify-full (DATABASE_TLS_CA names the authority).", online=True,
)  # fmt: skip
def plain_database(subject: Subject) -> Evidences:
    """`prefer` and `allow` go on in plain text with a server, or a stranger in its place, that offers no TLS."""
    key, url = subject.database
    if is_far(url) and _database(subject).encrypted is False:
        yield Evidence(f"the server at {host_of(url)} was reached without TLS", key)


@rule(
    "P429", WARNING, "The service may do everything in the database",
    remedy="ALTER ROLE ... NOSUPERUSER, or an account that owns only this database.", online=True,
)  # fmt: skip
def superuser(subject: Subject) -> Evidences:
    """One injected statement then reads every database of the server, and files of its host."""
    if _database(subject).superuser:
        yield Evidence("the account of the connection is a superuser", subject.database[0])


@rule(
    "P430", WARNING, "Nobody takes jobs",
    remedy="Start `flask prod worker` where the service runs, and see why it ended.", online=True,
)  # fmt: skip
def no_worker(subject: Subject) -> Evidences:
    """What is dispatched waits until somebody looks."""
    nobody: tuple[str, ...] = ()
    queues = _once(subject, "jobs", _unserved, nobody)
    if queues:
        yield Evidence(f"no worker serves {', '.join(queues)}", "JOBS_QUEUES")


def _database(subject: Subject) -> Database:
    return _once(subject, "database", _ask_database, Database())


def _redis(subject: Subject) -> Redis:
    return _once(subject, "redis", _ask_redis, Redis())


def _once(subject: Subject, name: str, ask: Callable[[Subject], AnswerT], unknown: AnswerT) -> AnswerT:
    """Return what was answered, *unknown* where nobody answers in time: P421 and P422 tell of that."""
    if name not in subject.answers:
        try:
            subject.answers[name] = within(partial(ask, subject), subject)
        except Exception:  # a server of any kind may refuse any of it
            subject.answers[name] = unknown
    answer: AnswerT = subject.answers[name]
    return answer


def _ask_database(subject: Subject) -> Database:
    handle = _handle(subject, "database")
    if handle is None or not subject.database[1]:
        return Database()
    from sqlalchemy import text

    with handle.engine.connect() as connection:
        kind = connection.dialect.name
        if kind == "postgresql":
            most, all_rights, encrypted = connection.execute(text(_POSTGRESQL)).one()
            # A pooler in between has a connection of its own: ours is what the driver says of it.
            driver = getattr(connection.connection.driver_connection, "pgconn", None)
            return Database(most, all_rights, getattr(driver, "ssl_in_use", encrypted))
        if kind in ("mysql", "mariadb"):
            cipher = connection.execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")).one()[1]
            return Database(connection.execute(text("SELECT @@max_connections")).scalar(), None, bool(cipher))
    return Database()


def _ask_redis(subject: Subject) -> Redis:
    handle = _handle(subject, "redis")
    if handle is None or not handle.configured:
        return Redis()
    from redis import ResponseError

    from flask_prod.components.redis.review import Review

    client, review, jobs = handle.client("locks"), Review(), _engine(subject)
    review.look(client, has_jobs=jobs is not None and jobs.backend.kind == "redis")
    try:
        flags = client.acl_getuser("default")["flags"]
    except ResponseError:  # this account may not ask, or the server knows no users
        return Redis(False, review.data)
    return Redis({"on", "nopass"} <= {str(one) for one in flags}, review.data)


def _unserved(subject: Subject) -> tuple[str, ...]:
    engine = _engine(subject)
    if engine is None:
        return ()
    named = {one.options.queue for one in engine.tasks.by_name.values()}
    return tuple(one.queue for one in engine.overview() if one.queue in named and not one.workers)


def _engine(subject: Subject) -> Any:
    """Return the application's jobs, if there are any that wait for a worker; None otherwise."""
    jobs = _handle(subject, "jobs")
    waits = jobs is not None and jobs.backend.usable and jobs.backend.kind in ("redis", "database")
    return jobs if waits and jobs.tasks.by_name else None


def _handle(subject: Subject, room: str) -> Any:
    contribution = subject.state.contributions.get(room) if subject.state is not None else None
    return contribution.handle if contribution is not None else None


RULES = (open_redis, evicts, forgets, plain_database, superuser, no_worker)
