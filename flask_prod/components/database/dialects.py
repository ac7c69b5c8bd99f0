"""What each kind of database is told when a connection is opened: name, time limits, encryption."""

from __future__ import annotations

import ssl
from typing import Any

from sqlalchemy import URL, Engine, event

from flask_prod.core.errors import ConfigError

from .settings import DatabaseSettings
from .silence import limit_silence

_LIBPQ, _PYMYSQL = ("psycopg", "psycopg2"), "pymysql"
_VERIFYING = ("verify-ca", "verify-full")
_ANSWER_LATE = 5.0
"""Seconds that a server may answer after its own time limit before the line counts as dead."""


def connect_args(url: URL, settings: DatabaseSettings, name: str) -> dict[str, Any]:
    """Return what the driver is given; what the address itself says is left out."""
    driver = _driver(url)
    if driver in _LIBPQ:
        given = _postgresql(url, settings, name)
    elif driver == _PYMYSQL:
        given = _pymysql(settings, name)
    else:
        given = {}
    return {key: value for key, value in given.items() if key == "options" or key not in url.query}


def refuse_unknown_tls(url: URL, settings: DatabaseSettings) -> None:
    """Raise ConfigError where DATABASE_TLS would have no effect: nobody would see that nothing is encrypted."""
    if settings.tls is None or url.get_backend_name() == "sqlite":
        return
    if _driver(url) not in (*_LIBPQ, _PYMYSQL):
        raise ConfigError(
            [
                f"DATABASE_TLS is known to psycopg and PyMySQL, not to {url.drivername}: say in the address what "
                "its driver is to do, and leave DATABASE_TLS out."
            ]
        )


def prepare(engine: Engine, settings: DatabaseSettings) -> None:
    """Limit the time of statements where only a statement can, and that of a server's silence."""
    limit_silence(engine)
    if engine.dialect.name not in ("mysql", "mariadb") or not settings.statement_timeout:
        return
    milliseconds = max(1, round(settings.statement_timeout * 1000))

    def limit(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT VERSION()")
            if "mariadb" in str(cursor.fetchone()[0]).lower():
                cursor.execute(f"SET SESSION max_statement_time = {milliseconds / 1000}")
            else:  # MySQL limits SELECT only
                cursor.execute(f"SET SESSION max_execution_time = {milliseconds}")

    event.listen(engine, "connect", limit)


def _driver(url: URL) -> str:
    """Return the driver's name; empty for a database whose drivers are not ours to know, or that is none."""
    return url.get_driver_name() if url.get_backend_name() in ("postgresql", "mysql", "mariadb") else ""


def _postgresql(url: URL, settings: DatabaseSettings, name: str) -> dict[str, Any]:
    given: dict[str, Any] = {
        "connect_timeout": max(2, round(settings.connect_timeout)),  # libpq takes 1 for 2
        "application_name": name,
        # A peer that vanished without a word is noticed within 10 s, where the system's default is two hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": 10_000,
    }
    if settings.tls:
        given["sslmode"] = settings.tls
        files = {"sslrootcert": settings.tls_ca, "sslcert": settings.tls_cert, "sslkey": settings.tls_key}
        given |= {key: value for key, value in files.items() if value}
        if settings.tls == "verify-full" and not settings.tls_ca:
            given["sslrootcert"] = "system"  # libpq would look into the user's home alone
    return given | _statement_timeout(url, settings)


def _statement_timeout(url: URL, settings: DatabaseSettings) -> dict[str, str]:
    options = str(url.query.get("options", ""))
    if not settings.statement_timeout or "statement_timeout" in options:
        return {}
    milliseconds = max(1, round(settings.statement_timeout * 1000))
    return {"options": f"{options} -c statement_timeout={milliseconds}".strip()}


def _pymysql(settings: DatabaseSettings, name: str) -> dict[str, Any]:
    given: dict[str, Any] = {"connect_timeout": max(1, round(settings.connect_timeout)), "program_name": name}
    if settings.statement_timeout:
        given["read_timeout"] = max(1, round(settings.statement_timeout + _ANSWER_LATE))
        given["write_timeout"] = given["read_timeout"]
    if settings.tls == "disable":
        given["ssl_disabled"] = True
    elif settings.tls not in (None, "prefer"):  # which is what PyMySQL does by itself
        given["ssl"] = tls_context(settings)
    return given


def tls_context(settings: DatabaseSettings) -> ssl.SSLContext:
    """Return the client's side of TLS as the settings want it; ConfigError for a file that cannot be read."""
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca or None)
        context.check_hostname = settings.tls == "verify-full"
        context.verify_mode = ssl.CERT_REQUIRED if settings.tls in _VERIFYING else ssl.CERT_NONE
        if settings.tls_cert:
            context.load_cert_chain(settings.tls_cert, settings.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            [f"DATABASE_TLS_CA, DATABASE_TLS_CERT and DATABASE_TLS_KEY must be readable PEM files: {error}."]
        ) from error
    return context
