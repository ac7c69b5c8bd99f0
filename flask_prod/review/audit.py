"""What a stranger gets who asks for everything: operations endpoints, stacks, secrets; missing headers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from .rule import ERROR, WARNING, Finding
from .stranger import Reply, Stranger

PATHS = (
    "/metrics", "/admin", "/admin/", "/debug", "/debug/vars", "/debug/pprof/", "/console", "/rq", "/rq/",
    "/flower", "/flower/", "/actuator", "/actuator/env", "/actuator/heapdump", "/server-status", "/config",
    "/.env", "/.git/HEAD", "/.git/config", "/_debug_toolbar/", "/phpmyadmin/", "/__debug__/",
    "/?__debugger__=yes&cmd=paste",
)  # fmt: skip
"""What scanners ask for first; asked also where no route has such a path."""

_OPERATIONS = re.compile(
    r"^/(metrics|admin|debug|console|rq|flower|actuator|server-status|_?debug_toolbar|ops|internal|\.env|\.git"
    r"|config|phpmyadmin|__debug__)(/|$|\?)", re.IGNORECASE,
)  # fmt: skip
_WORDS = frozenset((b"healthy", b"degraded", b"unhealthy", b"ready", b"unready", b"alive", b"starting", b"ok",
                    b"started", b"draining"))  # fmt: skip
_STACK = re.compile(
    rb"Traceback \(most recent call last\)|File &quot;/|^\s+File \"/[^\"]+\", line \d+", re.MULTILINE
)
_DEBUGGER = re.compile(rb"EVALEX\s*=|__debugger__|Werkzeug Debugger|The debugger caught an exception")
_VERSION = re.compile(r"/\d|\d+\.\d+")
_ASKED_EVERYWHERE = ("x-content-type-options", "strict-transport-security", "referrer-policy")
_UNJUDGED = (0, 429, 502, 503, 504)
"""No answer, or one that says nothing of what a stranger gets at another time."""

_SHOWN = 3
_SHORTEST = 8


@dataclass(frozen=True, slots=True)
class Exposure:
    """One kind of thing that no stranger should get."""

    id: str
    severity: str
    title: str
    remedy: str
    meaning: str


OPEN = Exposure(
    "A01", ERROR, "An operations endpoint answers strangers",
    "Guard it by a token or a sign-in, or take it out: Gate of core/gate.py compares OPS_TOKEN.",
    "Such pages tell how the service is built and who its customers are, or let anybody operate it.",
)  # fmt: skip
STACK = Exposure(
    "A02", ERROR, "An answer shows a stack",
    "Take DEBUG, TESTING and handlers that print exceptions out; the kit's problem pages show none.",
    "Paths, code and values in it are what the next attack is made of.",
)  # fmt: skip
DEBUGGER = Exposure(
    "A03", ERROR, "Werkzeug's debugger answers", "Take DEBUG and FLASK_DEBUG away, at once.",
    "Whoever reaches it runs Python on the host.",
)  # fmt: skip
SECRET = Exposure(
    "A04", ERROR, "An answer holds a secret of the service",
    "Take it out of the view, and replace the secret: flask prod secret generate NAME.",
    "It is known to whoever has asked since.",
)  # fmt: skip
HEADER = Exposure(
    "A05", WARNING, "A security header is missing",
    "Leave the headers room in, and set nothing empty: docs/headers.md.",
    "Browsers then guess types, show pages in frames of other sites, or come by http.",
)  # fmt: skip
VERSION = Exposure(
    "A06", WARNING, "A header tells the version of the software",
    "Take the header out where it is added: a proxy's server_tokens off, a view's X-Powered-By.",
    "It says which published holes are worth trying.",
)  # fmt: skip
COOKIE = Exposure(
    "A07", WARNING, "A cookie lacks Secure, HttpOnly or SameSite",
    "set_cookie(..., secure=True, httponly=True, samesite='Lax'); without httponly only where scripts read it.",
    "It goes over plain HTTP, is read by injected scripts, or goes along with requests of other sites.",
)  # fmt: skip

EXPOSURES = (OPEN, STACK, DEBUGGER, SECRET, HEADER, VERSION, COOKIE)


@dataclass(frozen=True)
class Audit:
    """What came of it; `unjudged` requests were refused by limits, sent to https, or met what is away."""

    findings: tuple[Finding, ...]
    requests: int
    unjudged: int


def audit(
    stranger: Stranger,
    asked: Iterable[tuple[str, str]],
    *,
    operational: Collection[str] = (),
    secret_texts: Collection[str] = (),
    told: Callable[[str], str] = str,
) -> Audit:
    """Ask for *asked*, *operational* paths and those that scanners know; *told* hides secrets in evidence."""
    everywhere = stranger.ask("GET", f"/{secrets.token_urlsafe(12)}")
    wanted = dict.fromkeys([*asked, *(("GET", path) for path in (*operational, *PATHS))])
    texts = [text.encode() for text in secret_texts if len(text) >= _SHORTEST]
    seen: dict[tuple[Exposure, str], list[str]] = {}
    unjudged = 0
    for method, path in wanted:
        reply = stranger.ask(method, path)
        unjudged += reply.status in _UNJUDGED or _sent_to_https(path, reply)
        for exposure, what in _exposures(method, path, reply, tuple(operational), everywhere, texts):
            seen.setdefault((exposure, what), []).append(f"{method} {path}")
    findings = [_finding(exposure, what, places, told) for (exposure, what), places in seen.items()]
    findings.sort(key=lambda one: (one.severity != ERROR, one.id))
    return Audit(tuple(findings), len(wanted), unjudged)


def _sent_to_https(path: str, reply: Reply) -> bool:
    """Tell whether a plain request was only sent to the same path by https."""
    target = reply.headers.get("location", "")
    return 300 <= reply.status < 400 and target.startswith("https://") and target.endswith(path)


def _exposures(
    method: str, path: str, reply: Reply, operational: tuple[str, ...], everywhere: Reply, texts: list[bytes]
) -> Iterator[tuple[Exposure, str]]:
    if _DEBUGGER.search(reply.body):
        yield DEBUGGER, ""
    elif _STACK.search(reply.body):
        yield STACK, ""
    if any(text in reply.body for text in texts):
        yield SECRET, ""
    if method == "GET" and _answers(path, reply, operational, everywhere):
        yield OPEN, path
    yield from ((HEADER, name) for name in _missing(reply, path in operational))
    for name in ("server", "x-powered-by", "x-aspnet-version"):
        if _VERSION.search(reply.headers.get(name, "")):
            yield VERSION, f"{name}: {reply.headers[name]}"
    for cookie in reply.cookies:
        name, flags = cookie.partition("=")[0], cookie.lower()
        lacks = [flag for flag in ("Secure", "HttpOnly", "SameSite") if flag.lower() not in flags]
        if lacks:
            yield COOKIE, f"{name} lacks {', '.join(lacks)}"


def _answers(path: str, reply: Reply, operational: tuple[str, ...], everywhere: Reply) -> bool:
    """Tell whether a path of operations gives a stranger more than a probe's one word."""
    own = any(path == one or (one.endswith("/") and path.startswith(one)) for one in operational)
    if not (own or _OPERATIONS.search(path)) or not 200 <= reply.status < 300:
        return False
    if reply.body.strip().strip(b'"') in _WORDS:
        return False
    # A site that answers every path (one page for all) answers these too.
    return not (everywhere.status == reply.status and everywhere.body == reply.body)


def _missing(reply: Reply, operational: bool) -> Iterator[str]:
    if operational or reply.failed or reply.status < 200 or reply.status in (304, 502, 504):
        return
    yield from (name for name in _ASKED_EVERYWHERE if name not in reply.headers)
    if not reply.html or 300 <= reply.status < 400:
        return
    policy = reply.headers.get("content-security-policy", "")
    if not policy and "content-security-policy-report-only" not in reply.headers:
        yield "content-security-policy"
    if "x-frame-options" not in reply.headers and "frame-ancestors" not in policy:
        yield "x-frame-options"


def _finding(exposure: Exposure, what: str, places: list[str], told: Callable[[str], str]) -> Finding:
    rest = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    where = ", ".join(places[:_SHOWN]) + rest
    evidence = where if exposure is OPEN else f"{what + ': ' if what else ''}{where}"
    return Finding(exposure.id, exposure.severity, exposure.title, told(evidence), exposure.remedy)
