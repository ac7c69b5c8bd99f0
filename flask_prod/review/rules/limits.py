"""Whether there are limits: to callers, to bodies, to forms."""

from __future__ import annotations

import re
from ipaddress import ip_network

from flask_prod.review.rule import INFO, WARNING, Evidence, Evidences, rule
from flask_prod.review.subject import Subject
from flask_prod.review.views import limited, views

LARGEST_BODY = 1024**3
STRICT = 20
"""Requests a minute: where strangers have no more for all pages, no password is guessed either."""

_SIGN_IN = re.compile(
    r"((log|sign)[-_]?(in|on)|authenticate|(verify[-_]?)?(otp|totp|2fa|mfa)"
    r"|(forgot|forgotten|reset|recover)[-_]?(your[-_]?)?password|password[-_/]?(reset|forgot|forgotten|recovery)"
    r"|(oauth2?|auth|jwt|connect|api)/token)/?$",
    re.IGNORECASE,
)
"""How the addresses end at which passwords, codes and tokens can be tried."""


@rule(
    "P501", WARNING, "There are no rate limits",
    remedy="RATE_LIMIT_ENABLED=true; RATE_LIMIT_PUBLIC and RATE_LIMIT_POLICIES say how much.",
)  # fmt: skip
def off(subject: Subject) -> Evidences:
    """One client may then take all of the service, or try passwords as fast as it answers."""
    if subject.get("RATE_LIMIT_ENABLED") is False:
        yield Evidence(subject.said("RATE_LIMIT_ENABLED"), "RATE_LIMIT_ENABLED")


@rule(
    "P502", WARNING, "Strangers are not limited",
    remedy="RATE_LIMIT_PUBLIC=100, requests of one address in a RATE_LIMIT_WINDOW.",
)  # fmt: skip
def no_public(subject: Subject) -> Evidences:
    """Only views with a policy of their own are then limited, and each forgotten one is not."""
    if subject.get("RATE_LIMIT_ENABLED") and subject.get("RATE_LIMIT_PUBLIC") is None:
        yield Evidence("RATE_LIMIT_PUBLIC is empty", "RATE_LIMIT_PUBLIC")


@rule(
    "P503", WARNING, "Limits only count, and refuse nobody",
    remedy="RATE_LIMIT_SHADOW=false once the numbers look right.",
)  # fmt: skip
def shadow(subject: Subject) -> Evidences:
    """Shadow limits are for finding the right numbers; they stop nobody."""
    if subject.get("RATE_LIMIT_ENABLED") and subject.get("RATE_LIMIT_SHADOW"):
        yield Evidence(subject.said("RATE_LIMIT_SHADOW"), "RATE_LIMIT_SHADOW")


@rule(
    "P504", WARNING, "Too many addresses are never limited",
    remedy="Name single machines or small networks in RATE_LIMIT_EXEMPT.",
)  # fmt: skip
def exempt(subject: Subject) -> Evidences:
    """A network of so many public addresses holds strangers as well."""
    for text in subject.get("RATE_LIMIT_EXEMPT") or ():
        network = ip_network(text, strict=False)
        widest = 16 if network.version == 4 else 32
        if network.prefixlen < widest and not network.is_private:
            yield Evidence(f"RATE_LIMIT_EXEMPT has {text}", "RATE_LIMIT_EXEMPT")


@rule(
    "P505", INFO, "Nobody is limited while Redis is away",
    remedy="RATE_LIMIT_FAIL=local counts in each process meanwhile.",
)  # fmt: skip
def fails_open(subject: Subject) -> Evidences:
    """Whoever can make Redis slow can then try passwords."""
    if subject.get("RATE_LIMIT_ENABLED") and subject.get("RATE_LIMIT_FAIL") == "open":
        yield Evidence(subject.said("RATE_LIMIT_FAIL"), "RATE_LIMIT_FAIL")


@rule(
    "P506", WARNING, "Request bodies may be of any size",
    remedy="MAX_CONTENT_LENGTH=16MB; a single view raises it by request.max_content_length.",
)  # fmt: skip
def bodies(subject: Subject) -> Evidences:
    """One client fills memory or disk with one upload."""
    size = subject.config("MAX_CONTENT_LENGTH")
    if subject.app is not None and (size is None or size > LARGEST_BODY):
        yield Evidence(
            f"MAX_CONTENT_LENGTH is {'none' if size is None else f'{size:,} bytes'}", "MAX_CONTENT_LENGTH"
        )


@rule(
    "P507", WARNING, "Forms may have any number of fields, of any size",
    remedy="Leave MAX_FORM_MEMORY_SIZE (500 kB) and MAX_FORM_PARTS (1,000) as they are, or raise them a little.",
)  # fmt: skip
def forms(subject: Subject) -> Evidences:
    """Fields of a form are held in memory, and many small ones cost many times their bytes."""
    for key in ("MAX_FORM_MEMORY_SIZE", "MAX_FORM_PARTS"):
        if subject.app is not None and subject.config(key) is None:
            yield Evidence(f"{key} is none", key)


@rule(
    "P508", WARNING, "Passwords may be tried as often as pages are read",
    remedy='@prod.limit("auth") on that view: 5 in 15 minutes; RATE_LIMIT_POLICIES="auth=..." says it otherwise.',
)  # fmt: skip
def sign_in(subject: Subject) -> Evidences:
    """The limit of all pages lets one address try tens of thousands of passwords or codes a day. Looked at are
    views whose address is that of a sign-in, and whether they have a limit of their own or of their blueprint."""
    public, window = subject.get("RATE_LIMIT_PUBLIC"), subject.get("RATE_LIMIT_WINDOW") or 60.0
    strict = public is not None and public / window * 60 <= STRICT
    if subject.app is None or not subject.get("RATE_LIMIT_ENABLED") or strict:
        return
    off = {name for name, policy in (subject.get("RATE_LIMIT_POLICIES") or {}).items() if not policy.strip()}
    for endpoint, path, methods, view in views(subject.app):
        if "POST" in methods and _is_sign_in(path) and not limited(subject.app, endpoint, view, off):
            yield Evidence(f"the view {endpoint} (POST {path}) has no limit of its own", "RATE_LIMIT_POLICIES")


def _is_sign_in(path: str) -> bool:
    place = _SIGN_IN.search(path)
    return path.rstrip("/") == "/token" or (place is not None and path[place.start() - 1] == "/")


RULES = (off, no_public, shadow, exempt, fails_open, bodies, forms, sign_in)
