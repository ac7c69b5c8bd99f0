"""Whether a service that has just been deployed is the one that was meant, and does what it should."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookies import CookieError, SimpleCookie
from typing import Any

from .burst import Limits, burst, told
from .caller import Answer, Caller
from .checked import Check, Doubtful, Failed, Result, Skipped, run

_NOTHING = "0"
"""The SERVICE_VERSION of an application that was not told its version."""

_STRANGER = "https://stranger.invalid"
"""An origin that nobody has."""

_SHOWN = 5
_PAUSE = 0.3
_DAY = 86400.0
_OLD_TLS = ("SSLv3", "TLSv1", "TLSv1.1")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the application says of itself: what the service that serves it must show."""

    version: str = ""
    health: str = ""
    metrics: str = ""
    metrics_port: int = 0
    health_token: str = ""
    metrics_token: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """The security headers of an answer that is no page."""

    forces_https: bool = False
    origins: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    session_cookie: str = "session"
    ping: Callable[[], str] | None = None
    """Sends a job to each queue and waits for it; None without jobs."""


@dataclass
class Verification:
    """All checks of one service."""

    caller: Caller
    expected: Expected
    limits: Limits
    plain: str = ""
    """The address by plain http, where people type it; port 80 of the same host if empty."""

    cert_days: float = 14.0
    wait: float = 0.0

    def results(self) -> Iterator[Result]:
        """Yield what each check found; where nobody answers at all, the rest is not tried."""
        first, *rest = self._checks()
        for name, call in (first, *rest):
            (result,) = run([(name, call)])
            yield result
            if name == first[0] and result.status == "fail":
                yield from (Result(other, "skip", "nobody answers") for other, _ in rest if other != "tls")
                yield from run([("tls", self.tls)])
                return

    def _checks(self) -> Sequence[Check]:
        return (
            ("reached", self.reached),
            ("live", lambda: self.probe("live")),
            ("ready", lambda: self.probe("ready")),
            ("startup", lambda: self.probe("startup")),
            ("health", self.health),
            ("version", self.version),
            ("metrics", self.metrics),
            ("headers", self.headers),
            ("cors", self.cors),
            ("redirect", self.redirect),
            ("tls", self.tls),
            ("routes", self.routes),
            ("cookies", self.cookies),
            ("jobs", self.jobs),
            ("load", self.load),
        )

    def reached(self) -> str:
        """Somebody answers; one who is just starting is given `wait` seconds to get ready."""
        path = f"{self.expected.health}/ready" if self.expected.health else "/"
        end = time.monotonic() + self.wait
        while True:
            try:
                answer = self.caller.get(path)
            except (OSError, http.client.HTTPException):
                if time.monotonic() > end:
                    raise
            else:
                if answer.status < 500 or time.monotonic() > end:
                    return f"{self.caller.url} answered {answer.status} in {answer.seconds * 1000:.0f} ms"
            time.sleep(_PAUSE)

    def probe(self, name: str) -> str:
        """The probe answers 200."""
        if not self.expected.health:
            raise Skipped("the application leaves the health room out")
        answer = self.caller.get(f"{self.expected.health}/{name}")
        words = answer.text[:40].strip()
        if answer.status != 200:
            raise Failed(f"{self.expected.health}/{name} answered {answer.status} {words!r}")
        return words

    def health(self) -> str:
        """Every check of the service is well; degraded is a warning."""
        found = self._details()
        bad = [
            f"{name} {one.get('status')}: {one.get('detail', '')}".rstrip(": ")
            for name, one in found.get("checks", {}).items()
            if one.get("status") != "ok"
        ]
        words = "; ".join(bad[:_SHOWN])
        if found["status"] == "unhealthy":
            raise Failed(words or "unhealthy")
        if found["status"] != "healthy":
            raise Doubtful(words or str(found["status"]))
        return f"{len(found.get('checks', {}))} checks are well"

    def version(self) -> str:
        """The version served is the one deployed."""
        wanted = self.expected.version
        if not wanted or wanted == _NOTHING:
            raise Skipped("nobody said which version it is: give --version, or set SERVICE_VERSION")
        served = self._details().get("version")
        if served is None:
            raise Failed("the service does not tell its version")
        if served != wanted:
            raise Failed(f"{served} is served, {wanted} was deployed")
        return f"{served} is served"

    def metrics(self) -> str:
        """Strangers are refused, Prometheus is not."""
        wanted = self.expected
        if not wanted.metrics:
            raise Skipped("the application has no metrics")
        stranger = self.caller.get(wanted.metrics)
        if wanted.metrics_port:
            return _closed(stranger, f"METRICS_PORT {wanted.metrics_port} was not asked")
        if not wanted.metrics_token:
            if stranger.status == 200 and not self.caller.as_https:
                raise Doubtful("open to callers of this network: set METRICS_TOKEN")
            return _closed(stranger, "without METRICS_TOKEN nothing more can be asked")
        _closed(stranger, "")
        answer = self.caller.get(wanted.metrics, {"Authorization": f"Bearer {wanted.metrics_token}"})
        if answer.status != 200 or b"flask_prod_build_info" not in answer.body:
            raise Failed(
                f"with the token {wanted.metrics} answered {answer.status}, not the metrics of the service"
            )
        return f"refused to strangers, {len(answer.body) // 1024} KB with the token"

    def headers(self) -> str:
        """The security headers of the application come through whatever stands in front."""
        if not self.expected.headers:
            raise Skipped("the application leaves the headers room out")
        path = f"{self.expected.health}/live" if self.expected.health else "/"
        found = self.caller.get(path).headers
        wrong = [_difference(name, value, found) for name, value in self.expected.headers]
        if any(wrong):
            raise Failed("; ".join(one for one in wrong if one))
        return f"{len(self.expected.headers)} are sent as they should be"

    def cors(self) -> str:
        """A site that nobody has named cannot read answers."""
        if "*" in self.expected.origins:
            raise Skipped("ALLOWED_ORIGINS allows every site")
        for path in self.expected.routes[:1] or ("/",):
            allowed = self.caller.get(path, {"Origin": _STRANGER}).headers.get("access-control-allow-origin")
            if allowed in (_STRANGER, "*", "null"):
                raise Failed(f"{path} may be read by {_STRANGER}: Access-Control-Allow-Origin is {allowed}")
        return "refused to a stranger"

    def redirect(self) -> str:
        """Whoever comes by plain http is sent to https."""
        if not self.expected.forces_https:
            raise Skipped("SECURITY_FORCE_HTTPS is off")
        path = (self.expected.routes or ("/",))[0]
        if self.caller.hops and not self.caller.secure:
            answer = self.caller.get(path, proxied=False)
        elif self.plain or self.caller.parts.port in (None, 443):
            plain = Caller(self.plain or f"http://{self.caller.parts.hostname}", ca=self.caller.ca)
            answer = plain.get(path)
        else:
            raise Skipped("the address by plain http is not known: give --http")
        where = answer.headers.get("location", "")
        if answer.status not in (301, 302, 307, 308) or not where.startswith("https://"):
            raise Failed(f"{path} by plain http answered {answer.status} {where}".rstrip())
        return f"{answer.status} to {where}"

    def tls(self) -> str:
        """The certificate is good for a while yet, and no old version is spoken."""
        if not self.caller.secure:
            raise Skipped("asked by plain http")
        found = self.caller.certificate()
        days = (found.expires - datetime.now(UTC)).total_seconds() / _DAY
        if found.version in _OLD_TLS:
            raise Failed(f"{found.version} is spoken")
        if days < self.cert_days:
            raise Failed(f"the certificate expires in {days:.0f} days, at {found.expires:%Y-%m-%d %H:%M} UTC")
        return f"{found.version}, the certificate is good for {days:.0f} days"

    def routes(self) -> str:
        """Every page that needs no parameter answers, and not with 500 or more."""
        if not self.expected.routes:
            raise Skipped("the application has no route without parameters")
        found = [(path, *self._route(path)) for path in self.expected.routes]
        wrong = [f"{path} {words or status}" for path, status, words in found if words or status >= 500]
        if all(status == 400 for _, status, _ in found):
            raise Failed("every route answers 400: is the name (--host) one of ALLOWED_HOSTS?")
        if wrong:
            raise Failed(f"{len(wrong)} of {len(self.expected.routes)}: {'; '.join(wrong[:_SHOWN])}")
        return f"{len(self.expected.routes)} routes answer below 500"

    def cookies(self) -> str:
        """The cookies that came with all these answers are told to be careful."""
        found = dict(_read(cookie) for cookie in self.caller.cookies)
        wrong = [line for name, flags in found.items() if (line := self._cookie(name, flags))]
        if wrong:
            raise Failed("; ".join(wrong))
        return f"{', '.join(found)}: flags are set" if found else "no answer has set any"

    def jobs(self) -> str:
        """A job goes to each queue, is run, and comes back."""
        if self.expected.ping is None:
            raise Skipped("there are no jobs here, or --no-jobs was given")
        return self.expected.ping()

    def load(self) -> str:
        """A little load is answered in time."""
        paths = self.expected.routes[:_SHOWN] or (f"{self.expected.health}/live" if self.expected.health else "/",)
        return told(burst(self.caller, paths, self.limits), self.limits)

    def _details(self) -> Mapping[str, Any]:
        if not self.expected.health:
            raise Skipped("the application leaves the health room out")
        if not self.expected.health_token:
            raise Failed("details need HEALTH_TOKEN: set it, or HEALTH_TOKEN_FILE, to what the service has")
        answer = self.caller.get(
            self.expected.health,
            {"Authorization": f"Bearer {self.expected.health_token}", "Accept": "application/json"},
        )
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if not isinstance(found, dict) or "checks" not in found:
            raise Failed(f"{self.expected.health} tells no details: is HEALTH_TOKEN the service's own?")
        return found

    def _route(self, path: str) -> tuple[int, str]:
        """Return the status, and what went wrong where there is none."""
        try:
            return self.caller.get(path).status, ""
        except (OSError, http.client.HTTPException) as error:
            return 0, f"{type(error).__name__}: {error}"

    def _cookie(self, name: str, flags: Mapping[str, object]) -> str:
        missing = []
        if self.caller.as_https and self.expected.forces_https and not flags["secure"]:
            missing.append("Secure")
        if name == self.expected.session_cookie and not flags["httponly"]:
            missing.append("HttpOnly")
        if not flags["samesite"]:
            missing.append("SameSite")
        return f"{name} lacks {', '.join(missing)}" if missing else ""


def _closed(answer: Answer, more: str) -> str:
    if answer.status == 200:
        raise Failed("open to strangers")
    return f"refused to strangers with {answer.status}" + (f"; {more}" if more else "")


def _difference(name: str, value: str, found: Mapping[str, str]) -> str:
    """Say how a header differs from what it should be; empty where it does not."""
    sent = found.get(name.lower())
    if sent is None:
        return f"{name} is missing"
    return "" if sent == value else f"{name} is {sent[:60]!r}, not {value[:60]!r}"


def _read(cookie: str) -> tuple[str, Mapping[str, object]]:
    try:
        (name, morsel), *_ = SimpleCookie(cookie).items()
    except (CookieError, ValueError) as error:
        raise Failed(f"a cookie cannot be read: {error}") from error
    return name, dict(morsel)
