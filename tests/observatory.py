"""The rules of the MDN HTTP Observatory, algorithm 6, for answers that are at hand instead of a site on the net.

Source: https://github.com/mdn/mdn-http-observatory at 94042bb; each rule names its file below src/analyzer/tests/,
and its points are those of SCORE_TABLE in src/grader/charts.js. Left out is what needs the net: the list of
preloaded HSTS hosts, certificates, and policies in <meta> elements, which the kit does not write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from typing import TypeAlias
from urllib.parse import urlsplit

Points: TypeAlias = tuple[str, int]
Policy: TypeAlias = Mapping[str, frozenset[str]]

EXTRA_CREDIT_FROM = 90
"""Points above 100 count from this score on: MINIMUM_SCORE_FOR_EXTRA_CREDIT in src/grader/charts.js."""

SIX_MONTHS = 15_552_000
# csp.js, DANGEROUSLY_BROAD and UNSAFE_INLINE.
BROAD = frozenset({"ftp:", "http:", "https:", "*", "http://*", "http://*.*", "https://*", "https://*.*"})
INLINE = frozenset({"'unsafe-inline'", "data:"})
NONCES = ("'sha256-", "'sha384-", "'sha512-", "'nonce-")
PASSIVE = ("img-src", "media-src")
ANY = frozenset({"*"})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer as a browser sees it; `origin` is what the request said."""

    url: str
    headers: Sequence[tuple[str, str]]
    body: str = ""
    origin: str | None = None

    def all(self, name: str) -> list[str]:
        """Return the values of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def first(self, name: str) -> str:
        """Return a header's first value, empty where there is none."""
        return next(iter(self.all(name)), "")


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What is judged: an answer, where its plain-HTTP twin leads, and the answer to a foreign origin."""

    answer: Answer
    route: Sequence[str] | None = None
    """The addresses from http:// to the end; None where nothing listens there."""

    foreign: Answer | None = None


def score(scan: Scan) -> int:
    """Return the score: 100, and what the rules add or take (analyzeScan in src/scanner/index.js)."""
    points = [rule(scan)[1] for rule in RULES]
    lost = 100 + sum(one for one in points if one < 0)
    return max(0, 100 + sum(points) if lost >= EXTRA_CREDIT_FROM else lost)


def verdicts(scan: Scan) -> dict[str, Points]:
    """Return what each rule found, for the message of a failed test."""
    return {rule.__name__: rule(scan) for rule in RULES}


def findings(answer: Answer) -> list[str]:
    """Return the directives that would let something through (the end of csp.js)."""
    policy = parse(answer.all("Content-Security-Policy"))
    default = policy.get("default-src", ANY)
    checked = {
        "base-uri": policy.get("base-uri", ANY) & (BROAD | INLINE),
        "frame-ancestors": policy.get("frame-ancestors", ANY) & BROAD,
        "form-action": policy.get("form-action", ANY) & BROAD,
        "object-src": policy.get("object-src", default) & BROAD,
        "script-src": policy.get("script-src", default) & (BROAD | INLINE),
    }
    return [directive for directive, loose in checked.items() if loose]


def parse(headers: Sequence[str]) -> Policy:
    """Return one policy by directive; ValueError for what cspParser.js calls invalid, or several policies."""
    policies = [policy.strip() for header in headers for policy in header.split(",")]
    if len(policies) > 1:
        raise ValueError("several policies")
    parsed: dict[str, frozenset[str]] = {}
    for entry in policies[0].split(";") if policies else ():
        name, *sources = entry.split() or ("",)
        if name.lower() in parsed:
            raise ValueError(f"{name} twice")
        if name:
            parsed[name.lower()] = frozenset(source.lower() for source in sources) or frozenset({"'none'"})
    return parsed


def csp(scan: Scan) -> Points:
    """csp.js."""  # the file's name
    answer = scan.answer
    try:
        policy = parse(answer.all("Content-Security-Policy"))
    except ValueError as error:
        return f"invalid: {error}", -25
    if not policy:
        return "not implemented", -25
    default = policy.get("default-src", ANY)
    script, style = (_effective(policy.get(name, default)) for name in ("script-src", "style-src"))
    active = script.union(*(sources for name, sources in policy.items() if name not in (*PASSIVE, "script-src")))
    passive = frozenset().union(*(policy.get(name, default) for name in PASSIVE))
    secure = answer.url.startswith("https:")
    judged = (
        (bool(script & (BROAD | INLINE) or policy.get("object-src", default) & BROAD), "unsafe inline", -20),
        (secure and _insecure(active), "insecure scheme", -20),
        ("'unsafe-eval'" in script | style, "unsafe eval", -10),
        (secure and _insecure(passive), "insecure scheme in passive content", -10),
        (bool(style & (BROAD | INLINE)), "unsafe inline in style-src only", 0),
        (default == {"'none'"}, "no unsafe, default-src 'none'", 10),
    )
    return next(((name, points) for found, name, points in judged if found), ("no unsafe", 5))


def _effective(sources: frozenset[str]) -> frozenset[str]:
    """A nonce or a hash switches 'unsafe-inline' off; with 'strict-dynamic' also hosts and schemes."""
    if not any(source.startswith(NONCES) for source in sources):
        return sources
    if "'strict-dynamic'" in sources:
        broad = {source for source in sources if source.startswith(tuple(BROAD)) or source == "'self'"}
        sources = sources - broad
    return sources - {"'unsafe-inline'"}


def _insecure(sources: frozenset[str]) -> bool:
    return any(source.startswith(("http:", "ftp:")) for source in sources)


def cookies(scan: Scan) -> Points:
    """cookies.js."""
    hsts = strict_transport_security(scan)[1] >= 0
    found: list[Points] = []
    same_site = True
    jar: SimpleCookie = SimpleCookie()
    for header in scan.answer.all("Set-Cookie"):
        jar.load(header)
    for name, cookie in jar.items():
        session = any(word in name.lower() for word in ("login", "sess"))
        same_site = same_site and bool(cookie["samesite"])
        if cookie["samesite"].lower() not in ("", "lax", "strict", "none"):
            found.append(("SameSite invalid", -20))
        if not cookie["secure"]:
            found.append(("not Secure", (-10 if session else -5) if hsts else (-40 if session else -20)))
        if "csrf" in name.lower() and not cookie["samesite"]:
            found.append(("anti-CSRF without SameSite", -20))
        if session and not cookie["httponly"]:
            found.append(("session not HttpOnly", -30))
    if found:
        return min(found, key=lambda one: one[1])
    if not jar:
        return "none", 0
    return ("secure, with SameSite", 5) if same_site else ("secure", 0)


def cors(scan: Scan) -> Points:
    """cors.js."""
    foreign = scan.foreign
    allowed = foreign.first("Access-Control-Allow-Origin") if foreign else ""
    if foreign is None or not allowed or allowed == "*":
        return "not implemented or public", 0
    if allowed == foreign.origin and foreign.first("Access-Control-Allow-Credentials").lower() == "true":
        return "universal access", -50
    return "restricted access", 0


def cross_origin_embedder_policy(scan: Scan) -> Points:
    """cross-origin-embedder-policy.js."""
    good = ("require-corp", "credentialless")
    return _token(scan, "Cross-Origin-Embedder-Policy", good, ("unsafe-none",))


def cross_origin_opener_policy(scan: Scan) -> Points:
    """cross-origin-opener-policy.js."""
    good = ("same-origin", "same-origin-allow-popups", "noopener-allow-popups")
    return _token(scan, "Cross-Origin-Opener-Policy", good, ("unsafe-none",))


def cross_origin_resource_policy(scan: Scan) -> Points:
    """cross-origin-resource-policy.js."""
    return _token(scan, "Cross-Origin-Resource-Policy", ("same-origin", "same-site"), ("cross-origin",))


def _token(scan: Scan, name: str, good: Sequence[str], neutral: Sequence[str]) -> Points:
    values = scan.answer.all(name)
    if not values:
        return "not implemented", 0
    if len(values) > 1 or values[0] not in (*good, *neutral):
        return f"invalid: {values}", -5
    return values[0], 10 if values[0] in good else 0


def redirection(scan: Scan) -> Points:
    """redirection.js."""
    if scan.route is None:
        return "not needed", 0
    route = [urlsplit(url) for url in scan.route]
    if len(route) == 1:
        return "missing", -20
    if route[-1].scheme != "https":
        return "not to https", -20
    if route[1].scheme != "https":
        return "not at once", -10
    return ("to https", 0) if route[0].hostname == route[1].hostname else ("to another host", -5)


def referrer_policy(scan: Scan) -> Points:
    """referrer-policy.js."""
    private = ("no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin")
    unsafe = ("origin", "origin-when-cross-origin", "unsafe-url", "no-referrer-when-downgrade")
    said = [word.strip().lower() for value in scan.answer.all("Referrer-Policy") for word in value.split(",")]
    if not said:
        return "not implemented", 0
    known = [word for word in said if word in (*private, *unsafe)]
    return ("private", 5) if known and known[-1] in private else ("unsafe or invalid", -5)


def strict_transport_security(scan: Scan) -> Points:
    """strict-transport-security.js."""
    values = scan.answer.all("Strict-Transport-Security")
    if not values:
        return "not implemented", -20
    ages = [part.strip()[8:] for part in values[0].lower().split(";") if part.strip().startswith("max-age=")]
    if "," in values[0] or not ages or not ages[0].isdigit():
        return "invalid", -20
    return ("six months", 0) if int(ages[0]) >= SIX_MONTHS else ("less than six months", -10)


class _Scripts(HTMLParser):
    """Collects the attributes of scripts that have a source."""

    def __init__(self, body: str) -> None:
        super().__init__()
        self.found: list[Mapping[str, str | None]] = []
        self.feed(body)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and dict(attrs).get("src"):
            self.found.append(dict(attrs))


def subresource_integrity(scan: Scan) -> Points:
    """subresource-integrity.js, by host where the source compares registered domains."""
    answer = scan.answer
    if not answer.first("Content-Type").startswith(("text/html", "application/xhtml+xml")):
        return "not HTML", 0
    host = urlsplit(answer.url).hostname
    worst: Points = ("no scripts, or from a secure origin", 0)
    for script in _Scripts(answer.body).found:
        source = urlsplit(str(script["src"]))
        if source.hostname in (None, host) and source.scheme != "http":
            continue
        if source.scheme != "https":
            return "external scripts not loaded securely", -20 if script.get("integrity") else -50
        if not script.get("integrity"):
            worst = ("external scripts without integrity", -5)
    return worst


def x_content_type_options(scan: Scan) -> Points:
    """x-content-type-options.js."""
    said = scan.answer.first("X-Content-Type-Options").strip().lower()
    return (said, 0) if said == "nosniff" else ("missing or invalid", -5)


def x_frame_options(scan: Scan) -> Points:
    """x-frame-options.js."""
    with suppress(ValueError):
        if "frame-ancestors" in parse(scan.answer.all("Content-Security-Policy")):
            return "by CSP", 5
    said = scan.answer.first("X-Frame-Options").strip().lower()
    if said in ("deny", "sameorigin"):
        return said, 5
    return ("allow-from", 0) if said.startswith("allow-from") else ("missing or invalid", -20)


RULES: tuple[Callable[[Scan], Points], ...] = (
    csp, cookies, cors, cross_origin_embedder_policy, cross_origin_opener_policy, cross_origin_resource_policy,
    redirection, referrer_policy, strict_transport_security, subresource_integrity, x_content_type_options,
    x_frame_options,
)  # fmt: skip
