"""What can be set about security headers, the redirect to HTTPS, and the session cookie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration

PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'"
)
API_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PERMISSIONS = (
    "accelerometer=(), browsing-topics=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), "
    "magnetometer=(), microphone=(), midi=(), payment=(), usb=()"
)

YEAR = 365 * 86400.0


class SecuritySettings(Section, frozen=True, kw_only=True):
    """What browsers are told about this service."""

    prefix: ClassVar[str] = "SECURITY_"

    csp: str | dict[str, str | list[str]] = PAGE_POLICY
    """The Content-Security-Policy of pages, as text or a mapping; empty sends none. `frame-ancestors` follows
    SECURITY_FRAME unless the policy names it."""

    csp_api: str = API_POLICY
    """The Content-Security-Policy of all answers that are not pages."""

    csp_report_only: bool = False
    """Report what the policy would block, and block nothing."""

    csp_report_uri: str = ""
    """Where browsers send their reports; empty leaves it to the kit's own endpoint, if there is one."""

    csp_report_path: str = ""
    """The path of the kit's own endpoint, which counts reports; `/csp-reports` if empty with report-only."""

    hsts_max_age: Duration | None = YEAR
    """How long browsers remember to come by HTTPS; 0 makes them forget, empty sends no header."""

    hsts_subdomains: bool = False
    """Say the same for all subdomains; it cannot be taken back quickly."""

    hsts_preload: bool = False
    """Consent to being built into browsers (hstspreload.org); needs subdomains and a year."""

    frame: Literal["DENY", "SAMEORIGIN", ""] = "DENY"
    """Who may show these pages in a frame: nobody, this origin, or (empty) anybody."""

    force_https: bool = True
    """Redirect plain HTTP to HTTPS, and send the session cookie over HTTPS only."""

    referrer_policy: str = "strict-origin-when-cross-origin"
    """What other sites learn about where a visitor comes from."""

    permissions_policy: str = PERMISSIONS
    """Which features of the browser pages may use; empty sends no header."""

    opener_policy: Literal[
        "same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none", ""
    ] = "same-origin"
    """Cross-Origin-Opener-Policy; sign-in windows of other sites need `same-origin-allow-popups`."""

    embedder_policy: Literal["require-corp", "credentialless", "unsafe-none", ""] = "credentialless"
    """Cross-Origin-Embedder-Policy; empty where pages frame other sites (payment forms, videos, maps)."""

    resource_policy: Literal["same-origin", "same-site", "cross-origin", ""] = "same-origin"
    """Cross-Origin-Resource-Policy: which sites may embed our answers; CORS requests are not affected."""

    xss_protection: bool = False
    """Send X-XSS-Protection, which only browsers before 2020 read."""

    cookie_secure: bool | None = None
    """Send the session cookie over HTTPS only; empty means the same as SECURITY_FORCE_HTTPS."""

    cookie_samesite: Literal["Lax", "Strict", "None"] = "Lax"
    """The SameSite of the session cookie, unless app.config has SESSION_COOKIE_SAMESITE."""

    @property
    def report_path(self) -> str:
        """The path of the kit's own report endpoint; empty for none."""
        if not self.csp_report_path and self.csp_report_only and not self.csp_report_uri:
            return "/csp-reports"
        return self.csp_report_path

    def problems(self) -> Iterator[str]:
        """Yield what would be ignored by browsers, or could break the header."""
        if self.hsts_preload and not (self.hsts_subdomains and (self.hsts_max_age or 0) >= YEAR):
            yield "SECURITY_HSTS_PRELOAD needs SECURITY_HSTS_SUBDOMAINS=true and SECURITY_HSTS_MAX_AGE=365d."
        if self.csp_report_path and not self.csp_report_path.startswith("/"):
            yield "SECURITY_CSP_REPORT_PATH must start with /; SECURITY_CSP_REPORT_URI names another service."
        if self.cookie_samesite == "None" and not self.secure_cookie:
            yield "SECURITY_COOKIE_SAMESITE=None needs SECURITY_COOKIE_SECURE=true, or browsers drop the cookie."
        for name in ("csp", "csp_api", "csp_report_uri", "referrer_policy", "permissions_policy"):
            if any(ord(letter) < 32 or ord(letter) > 126 for letter in str(getattr(self, name))):
                yield f"SECURITY_{name.upper()} must be one line of plain ASCII: it becomes a header."

    @property
    def secure_cookie(self) -> bool:
        """Whether the session cookie goes over HTTPS only."""
        return self.force_https if self.cookie_secure is None else self.cookie_secure
