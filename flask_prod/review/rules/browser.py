"""What browsers are told: headers, cookies, cross-origin access, host names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from flask_prod.review.rule import ERROR, WARNING, Evidence, Evidences, rule
from flask_prod.review.subject import Subject

MONTH = 30 * 86400.0
_HOME = re.compile(r"://(localhost|127\.0\.0\.1|\[::1\]|0\.0\.0\.0|[a-z0-9.-]+\.(localhost|local|test))(:\d+)?$")


@rule(
    "P301", WARNING, "Pages have no Content-Security-Policy",
    remedy="Leave SECURITY_CSP out for the kit's policy, or write one: docs/headers.md.",
)  # fmt: skip
def no_policy(subject: Subject) -> Evidences:
    """One forgotten escape in a template is then a script that does whatever the visitor may do."""
    if subject.has("SECURITY_CSP") and not subject.get("SECURITY_CSP"):
        yield Evidence("SECURITY_CSP is empty", "SECURITY_CSP")


@rule(
    "P302", WARNING, "The Content-Security-Policy lets foreign scripts run",
    remedy="Take the source out of script-src; inline scripts get a nonce: docs/headers.md.",
)  # fmt: skip
def loose_policy(subject: Subject) -> Evidences:
    """With 'unsafe-inline' or any origin the policy stops no injected script, which is what it is for."""
    sources = _script_sources(subject.get("SECURITY_CSP") or "")
    guarded = any(one.startswith(("'nonce-", "'sha256-", "'sha384-", "'sha512-")) for one in sources)
    bad = [one for one in sources if one in ("*", "http:", "https:", "data:", "'unsafe-eval'")]
    if "'unsafe-inline'" in sources and not guarded and "'strict-dynamic'" not in sources:
        bad.append("'unsafe-inline'")
    if bad and "'strict-dynamic'" not in sources:
        yield Evidence(f"SECURITY_CSP allows scripts from {' '.join(bad)}", "SECURITY_CSP")


@rule(
    "P303", WARNING, "The Content-Security-Policy only reports",
    remedy="SECURITY_CSP_REPORT_ONLY=false once the reports have stopped.",
)  # fmt: skip
def reporting(subject: Subject) -> Evidences:
    """A policy that blocks nothing protects nobody; it is right for some weeks, while you read the reports."""
    if subject.get("SECURITY_CSP_REPORT_ONLY"):
        yield Evidence(subject.said("SECURITY_CSP_REPORT_ONLY"), "SECURITY_CSP_REPORT_ONLY")


@rule(
    "P304", WARNING, "HSTS is off or short",
    remedy="SECURITY_HSTS_MAX_AGE=365d; begin with 30d where you are not sure that all is on https.",
)  # fmt: skip
def hsts(subject: Subject) -> Evidences:
    """Without it a browser's next visit may begin with http://, which somebody on the way can keep there."""
    if subject.has("SECURITY_HSTS_MAX_AGE") and (subject.get("SECURITY_HSTS_MAX_AGE") or 0) < MONTH:
        seconds = subject.get("SECURITY_HSTS_MAX_AGE")
        shown = "empty" if seconds is None else f"{seconds:g} s"
        yield Evidence(f"SECURITY_HSTS_MAX_AGE is {shown}", "SECURITY_HSTS_MAX_AGE")


@rule(
    "P305", WARNING, "Anybody may show the pages in a frame",
    remedy="SECURITY_FRAME=DENY or SAMEORIGIN, or name the sites by frame-ancestors in SECURITY_CSP.",
)  # fmt: skip
def frames(subject: Subject) -> Evidences:
    """A page under an invisible frame takes clicks for something else (clickjacking)."""
    if subject.get("SECURITY_FRAME") == "" and "frame-ancestors" not in str(subject.get("SECURITY_CSP")):
        yield Evidence("SECURITY_FRAME is empty, and SECURITY_CSP has no frame-ancestors", "SECURITY_FRAME")


@rule(
    "P306", ERROR, "The session cookie also goes over plain HTTP",
    remedy="SECURITY_COOKIE_SECURE=true, and nothing else in app.config under SESSION_COOKIE_SECURE.",
)  # fmt: skip
def insecure_cookie(subject: Subject) -> Evidences:
    """Whoever sees one request has the visitor's session."""
    if subject.app is None or not subject.app.secret_key or subject.app.debug:
        return  # debug mode lets cookies go by http, and is a finding of its own
    if subject.config("SESSION_COOKIE_SECURE") is False:
        yield Evidence("SESSION_COOKIE_SECURE is false", "SECURITY_COOKIE_SECURE")


@rule(
    "P307", ERROR, "Scripts may read the session cookie",
    remedy="Leave SESSION_COOKIE_HTTPONLY at true.",
)  # fmt: skip
def readable_cookie(subject: Subject) -> Evidences:
    """An injected script then sends the session away."""
    if subject.config("SESSION_COOKIE_HTTPONLY") is False:
        yield Evidence("SESSION_COOKIE_HTTPONLY is false", "SESSION_COOKIE_HTTPONLY")


@rule(
    "P308", WARNING, "Other sites' requests carry the session cookie",
    remedy="SECURITY_COOKIE_SAMESITE=Lax, unless the pages live in a frame of another site.",
)  # fmt: skip
def same_site(subject: Subject) -> Evidences:
    """A form on any other site can then act for your visitors (CSRF)."""
    if subject.config("SESSION_COOKIE_SAMESITE") == "None":
        yield Evidence("SESSION_COOKIE_SAMESITE is None", "SECURITY_COOKIE_SAMESITE")


@rule(
    "P309", WARNING, "Origins without encryption may read answers",
    remedy="Write https:// in ALLOWED_ORIGINS.",
)  # fmt: skip
def plain_origins(subject: Subject) -> Evidences:
    """Whoever is between a visitor and such a site puts scripts into it, which then read your answers."""
    for key, origin in _origins(subject):
        if origin.startswith("http://") and not _HOME.search(origin):
            yield Evidence(f"{key} has {origin}", key)


@rule(
    "P310", WARNING, "Origins of a developer's machine may read answers",
    remedy="Keep them in config/development.toml.",
)  # fmt: skip
def home_origins(subject: Subject) -> Evidences:
    """Any program on a visitor's machine can serve such an origin."""
    for key, origin in _origins(subject):
        if _HOME.search(origin):
            yield Evidence(f"{key} has {origin}", key)


@rule(
    "P311", WARNING, "Any host name is answered",
    remedy="ALLOWED_HOSTS=shop.example.com, or *.example.com for subdomains.",
)  # fmt: skip
def any_host(subject: Subject) -> Evidences:
    """Links in mails, as for a new password, are made of the Host header: a stranger chooses where they lead."""
    if subject.state is not None and "proxy" in subject.state.contributions and not subject.get("ALLOWED_HOSTS"):
        yield Evidence("ALLOWED_HOSTS is empty", "ALLOWED_HOSTS")


@rule(
    "P312", ERROR, "Tokens in cookies go over plain HTTP, or to any site's requests",
    remedy="JWT_COOKIE_SECURE=True and JWT_COOKIE_CSRF_PROTECT=True.",
)  # fmt: skip
def jwt_cookies(subject: Subject) -> Evidences:
    """A token in a cookie is a session: it needs the same care."""
    places = subject.config("JWT_TOKEN_LOCATION") or ()
    if not subject.uses("flask-jwt-extended") or "cookies" not in places:
        return
    for key in ("JWT_COOKIE_SECURE", "JWT_COOKIE_CSRF_PROTECT"):
        if not subject.config(key):
            yield Evidence(f"{key} is false, and JWT_TOKEN_LOCATION has cookies", key)


@rule(
    "P313", ERROR, "Forms are not protected from other sites",
    remedy="Leave WTF_CSRF_ENABLED at True; exempt single views by @csrf.exempt.",
)  # fmt: skip
def csrf(subject: Subject) -> Evidences:
    """The switch is for tests: without it any site sends your forms in a visitor's name."""
    if subject.config("WTF_CSRF_ENABLED") is False:
        yield Evidence("WTF_CSRF_ENABLED is false", "WTF_CSRF_ENABLED")


@rule(
    "P314", WARNING, "The cookie that remembers a sign-in also goes over plain HTTP",
    remedy="REMEMBER_COOKIE_SECURE=True and REMEMBER_COOKIE_SAMESITE='Lax' in app.config.",
)  # fmt: skip
def remember_cookie(subject: Subject) -> Evidences:
    """Flask-Login sets it for a year where a view says `remember=True`, and without this flag unless told: whoever
    sees one request is signed in as the visitor."""
    key = "REMEMBER_COOKIE_SECURE"
    if subject.app is None or subject.app.debug:
        return
    if subject.config(key) is False:
        yield Evidence(f"{key} is false", key)
    elif subject.uses_login and not subject.config(key):
        yield Evidence(f"{key} is not set, and Flask-Login is used", key)


def _script_sources(policy: str | Mapping[str, str | list[str]]) -> list[str]:
    if isinstance(policy, str):
        parts = (part.split() for part in policy.split(";") if part.strip())
        found = {words[0].lower(): words[1:] for words in parts}
    else:
        found = {key: value.split() if isinstance(value, str) else list(value) for key, value in policy.items()}
    return [one.lower() for one in found.get("script-src", found.get("default-src", []))]


def _origins(subject: Subject) -> Iterator[tuple[str, str]]:
    yield from (("ALLOWED_ORIGINS", one.lower()) for one in subject.get("ALLOWED_ORIGINS") or ())
    resources = subject.get("CORS_RESOURCES")
    for options in resources.values() if isinstance(resources, Mapping) else ():
        origins = options.get("origins", ()) if isinstance(options, Mapping) else ()
        many = (origins,) if isinstance(origins, str) else origins
        yield from (("CORS_RESOURCES", one.lower()) for one in many if isinstance(one, str))


RULES = (
    no_policy, loose_policy, reporting, hsts, frames, insecure_cookie, readable_cookie, same_site, plain_origins,
    home_origins, any_host, jwt_cookies, csrf, remember_cookie,
)  # fmt: skip
