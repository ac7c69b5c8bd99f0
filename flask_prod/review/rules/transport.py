"""Whether what travels is encrypted: to browsers, to the database, to Redis, to those who collect."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from flask_prod.review.rule import ERROR, INFO, WARNING, Evidence, Evidences, rule
from flask_prod.review.subject import Subject
from flask_prod.server import tls
from flask_prod.server.web_settings import ServerSettings

_ENCRYPTED = ("require", "verify-ca", "verify-full")
_VERIFIED = ("verify-ca", "verify-full")


@rule(
    "P201", WARNING, "HTTP is not sent to HTTPS",
    remedy="SECURITY_FORCE_HTTPS=true, and TRUSTED_PROXIES if a balancer ends TLS.",
)  # fmt: skip
def plain(subject: Subject) -> Evidences:
    """A first visit by http:// can be read and changed on the way, and the session cookie goes with it."""
    if subject.get("SECURITY_FORCE_HTTPS") is False:
        yield Evidence(subject.said("SECURITY_FORCE_HTTPS"), "SECURITY_FORCE_HTTPS")


@rule(
    "P202", ERROR, "Every request is sent to HTTPS for ever",
    remedy="TRUSTED_PROXIES=1 behind one balancer or nginx (count the hops), or TLS_ENABLED=true without any.",
)  # fmt: skip
def loop(subject: Subject) -> Evidences:
    """The service speaks plain HTTP itself and believes no proxy, so it takes each request for http and redirects
    it, also those that came by https to the balancer."""
    if not subject.get("SECURITY_FORCE_HTTPS") or subject.get("TLS_ENABLED"):
        return
    if not subject.get("TRUSTED_PROXIES"):
        yield Evidence(
            "SECURITY_FORCE_HTTPS is on, TLS_ENABLED is off and TRUSTED_PROXIES is 0", "TRUSTED_PROXIES"
        )
    elif subject.has("FORWARDED_HEADERS") and "proto" not in subject.get("FORWARDED_HEADERS"):
        yield Evidence("FORWARDED_HEADERS leaves out proto, by which the balancer says https", "FORWARDED_HEADERS")


@rule(
    "P203", ERROR, "The certificate has expired, or soon will",
    remedy="Renew it, and send SIGHUP to gunicorn, which takes up the new one.",
)  # fmt: skip
def certificate(subject: Subject) -> Evidences:
    """Clients refuse an expired certificate."""
    if subject.get("TLS_ENABLED") and subject.state is not None:
        found = ServerSettings(
            tls_enabled=True,
            tls_cert_file=subject.text("TLS_CERT_FILE"),
        )
        for sentence in tls.warnings(found):
            yield Evidence(sentence, "TLS_CERT_FILE")


@rule(
    "P204", WARNING, "The database is reached without encryption",
    remedy="DATABASE_TLS=verify-full (DATABASE_TLS_CA names the authority).",
)  # fmt: skip
def database(subject: Subject) -> Evidences:
    """Whoever is on the way reads rows and passwords, and can answer in the server's place."""
    for key, url in _databases(subject):
        mode = _mode(subject, url)
        if is_far(url) and mode not in _ENCRYPTED:
            yield Evidence(f"{key} names {host_of(url)}, and its TLS mode is {mode or 'not set'}", key)


@rule(
    "P205", INFO, "The certificate of the database is not checked",
    remedy="DATABASE_TLS=verify-full, with DATABASE_TLS_CA if an authority of your own has signed it.",
)  # fmt: skip
def database_verified(subject: Subject) -> Evidences:
    """`require` encrypts, and does so with whoever answers."""
    for key, url in _databases(subject):
        mode = _mode(subject, url)
        if is_far(url) and mode in _ENCRYPTED and mode not in _VERIFIED:
            yield Evidence(f"{key} names {host_of(url)}, and its TLS mode is {mode}", key)


@rule(
    "P206", WARNING, "Redis is reached without encryption",
    remedy="Write rediss:// in REDIS_URL (REDIS_TLS_CA names the authority).",
)  # fmt: skip
def redis(subject: Subject) -> Evidences:
    """Cached pages, jobs and the password travel as plain text."""
    url = subject.text("REDIS_URL")
    if url.startswith("redis") and not url.startswith("rediss") and is_far(url):
        yield Evidence(f"REDIS_URL names {host_of(url)} with redis://", "REDIS_URL")


@rule(
    "P207", WARNING, "Keys or reports are sent over plain HTTP",
    remedy="Write https:// in the address.",
)  # fmt: skip
def reports(subject: Subject) -> Evidences:
    """Error reports and spans hold what users did, and the keys to send more of them."""
    keys = ["SENTRY_DSN", "BACKUP_S3_ENDPOINT"]
    keys += ["OTLP_ENDPOINT"] if subject.get("OTLP_HEADERS") else []
    for key in keys:
        url = subject.text(key)
        if url.startswith("http://") and is_far(url):
            yield Evidence(f"{key} names {host_of(url)} with http://", key)


def host_of(url: str) -> str:
    """Return the host of an address; empty for a file or a socket."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_far(url: str) -> bool:
    """Tell whether an address leaves this host; one label alone is a neighbour in a network of containers."""
    host = host_of(url)
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return "." in host and not host.endswith(".localhost")


def _databases(subject: Subject) -> Iterator[tuple[str, str]]:
    key, url = subject.database
    urls = [(key, url)]
    urls += [("DATABASE_REPLICA_URLS", one.reveal()) for one in subject.get("DATABASE_REPLICA_URLS") or ()]
    yield from ((key, url) for key, url in urls if url and not url.startswith("sqlite"))


def _mode(subject: Subject, url: str) -> str:
    query = parse_qs(urlsplit(url).query)
    said = subject.get("DATABASE_TLS") or next(iter(query.get("sslmode", query.get("ssl_mode", []))), "")
    if not said and ({"ssl_ca", "ssl", "sslrootcert"} & set(query)):
        return "verify-ca"
    return str(said).lower().replace("_", "-")


RULES = (plain, loop, certificate, database, database_verified, redis, reports)
