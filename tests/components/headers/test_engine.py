"""The headers themselves: what the library is asked, and what is replayed."""

from __future__ import annotations

from typing import Any

import pytest
from http_sfv.dictionary import Dictionary
from http_sfv.item import Item
from http_sfv.types import Token

from flask_prod.components.headers.engine import HeaderPlans, Options, nonce_sections, parse_policy
from flask_prod.components.headers.settings import SecuritySettings
from flask_prod.core.component import HeaderList
from flask_prod.core.record import RequestRecord
from tests.core.rooms import answered

HTML = ("Content-Type", "text/html; charset=utf-8")
JSON = ("Content-Type", "application/json")


def answer(
    *headers: tuple[str, str], scheme: str = "https", status: int = 200, nonce: str | None = None, **settings: Any
) -> dict[str, str]:
    """Return the headers of an answer that starts with *headers*; every name appears once."""
    record = record_of(scheme, status, nonce)
    sent: HeaderList = list(headers)
    plans(**settings).add(answered(record, sent), sent)
    assert len({name.lower() for name, _ in sent}) == len(sent)
    return dict(sent)


def plans(views: dict[str, Options] | None = None, **settings: Any) -> HeaderPlans:
    return HeaderPlans(SecuritySettings(**settings), lambda endpoint: (views or {}).get(endpoint, {}))


def record_of(
    scheme: str = "https", status: int = 200, nonce: str | None = None, endpoint: str | None = None
) -> RequestRecord:
    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": scheme, "HTTP_HOST": "shop.example.com"}
    record = RequestRecord(environ, "a" * 32, 0.0)
    record.status, record.nonce, record.endpoint = status, nonce, endpoint
    return record


def test_page_set() -> None:
    """A page gets the strict set with no directive missing that has no fallback."""
    headers = answer(HTML)

    policy = parse_policy(headers["Content-Security-Policy"])
    assert policy["default-src"] == policy["script-src"] == policy["form-action"] == "'self'"
    assert policy["object-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "geolocation=()" in headers["Permissions-Policy"]
    assert "X-XSS-Protection" not in headers


@pytest.mark.parametrize("headers", [(JSON,), (("Content-Type", "image/svg+xml"),), ()])
def test_api_set(headers: tuple[tuple[str, str], ...]) -> None:
    """What is not a page may load nothing and be framed by nobody."""
    policy = parse_policy(answer(*headers)["Content-Security-Policy"])

    assert policy == {
        "default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"
    }  # fmt: skip


def test_trap_57_hsts_without_subdomains() -> None:
    """HSTS is sent over HTTPS only, and speaks for this host alone unless asked."""
    assert answer(HTML)["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in answer(HTML, scheme="http")
    assert answer(HTML, hsts_subdomains=True)["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


def test_hsts_zero_is_not_none() -> None:
    """An explicit zero takes the promise back; empty makes none."""
    assert answer(HTML, hsts_max_age=0)["Strict-Transport-Security"] == "max-age=0"
    assert "Strict-Transport-Security" not in answer(HTML, hsts_max_age=None)


def test_the_view_wins() -> None:
    """What the view set stays, and nothing is said twice."""
    own = answer(HTML, ("content-security-policy", "default-src *"), ("Referrer-Policy", "no-referrer"))

    assert own["content-security-policy"] == "default-src *"
    assert "Content-Security-Policy" not in own
    assert own["Referrer-Policy"] == "no-referrer"
    assert own["X-Content-Type-Options"] == "nosniff"


def test_frame_options_of_a_view_are_not_undone_by_the_policy() -> None:
    """Browsers prefer frame-ancestors: a view that set X-Frame-Options itself must not meet ours."""
    own = answer(HTML, ("X-Frame-Options", "SAMEORIGIN"))

    assert own["X-Frame-Options"] == "SAMEORIGIN"
    assert "frame-ancestors" not in own["Content-Security-Policy"]


def test_nonce_only_where_it_was_used() -> None:
    """The policy names a nonce once a template asked for it, for scripts and styles."""
    policy = parse_policy(answer(HTML, nonce="bm9uY2U")["Content-Security-Policy"])

    assert policy["script-src"] == policy["style-src"] == "'self' 'nonce-bm9uY2U'"
    assert "nonce" not in answer(HTML)["Content-Security-Policy"]
    assert "nonce" not in answer(JSON, nonce="bm9uY2U")["Content-Security-Policy"]


def test_not_modified_changes_no_policy() -> None:
    """A 304 updates the stored page's headers: it must not bring the policy of something else."""
    headers = answer(status=304)

    assert "Content-Security-Policy" not in headers
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_report_only() -> None:
    """The switch reports and blocks nothing, to the kit's own endpoint or another."""
    headers = answer(HTML, csp_report_only=True)
    elsewhere = answer(HTML, csp_report_only=True, csp_report_uri="https://reports.example.com/csp")

    assert "Content-Security-Policy" not in headers
    assert headers["Content-Security-Policy-Report-Only"].endswith("report-uri /csp-reports")
    assert elsewhere["Content-Security-Policy-Report-Only"].endswith("report-uri https://reports.example.com/csp")


@pytest.mark.parametrize(
    ("frame", "options", "ancestors"),
    [("SAMEORIGIN", "SAMEORIGIN", "'self'"), ("DENY", "DENY", "'none'"), ("", None, None)],
)
def test_frame(frame: Any, options: str | None, ancestors: str | None) -> None:
    """SECURITY_FRAME sets both headers browsers look at, or neither."""
    headers = answer(HTML, frame=frame)

    assert headers.get("X-Frame-Options") == options
    assert parse_policy(headers["Content-Security-Policy"]).get("frame-ancestors") == ancestors


def test_structured_headers_parse() -> None:
    """Headers that browsers read as structured fields (RFC 9651) are ones."""
    headers = answer(HTML)

    permissions = Dictionary()
    permissions.parse(headers["Permissions-Policy"].encode())
    assert [list(value) for value in permissions.values()] == [[]] * len(permissions)
    for name in ("Opener", "Embedder"):
        item = Item()
        item.parse(headers[f"Cross-Origin-{name}-Policy"].encode())
        assert isinstance(item.value, Token)


def test_own_policy() -> None:
    """SECURITY_CSP may be text or a mapping; the frame rule is added unless it is there."""
    text = answer(HTML, csp="default-src 'self' https://cdn.example.com;")["Content-Security-Policy"]
    mapping = answer(HTML, csp={"default-src": ["'self'", "data:"], "frame-ancestors": "https://a.example"})

    assert text == "default-src 'self' https://cdn.example.com; frame-ancestors 'none'"
    assert mapping["Content-Security-Policy"] == "default-src 'self' data:; frame-ancestors https://a.example"
    assert "Content-Security-Policy" not in answer(HTML, csp="")


def test_options_of_a_view() -> None:
    """A view's options replace the settings for its endpoint alone, asked of the library once."""
    built = plans(
        views={"embed": {"frame_options": "ALLOW-FROM", "frame_options_allow_from": "https://a.example"}}
    )
    headers: HeaderList = [HTML]

    built.add(answered(record_of(endpoint="embed"), headers), headers)

    assert dict(headers)["X-Frame-Options"] == "ALLOW-FROM https://a.example"
    assert "frame-ancestors https://a.example" in dict(headers)["Content-Security-Policy"]
    assert built.plan("embed") is built.plan("embed")
    assert built.plan("other") is built.plan(None)


def test_policy_of_a_view_holds_for_all_it_answers() -> None:
    """A view that names a policy means it, for JSON as well; None means no policy."""
    built = plans(
        views={"own": {"content_security_policy": "default-src https:"}, "none": {"content_security_policy": None}}
    )
    own: HeaderList = [JSON]
    none: HeaderList = [JSON]

    built.add(answered(record_of(endpoint="own"), own), own)
    built.add(answered(record_of(endpoint="none"), none), none)

    assert dict(own)["Content-Security-Policy"] == "default-src https:; frame-ancestors 'none'"
    assert "Content-Security-Policy" not in dict(none)


@pytest.mark.parametrize(
    ("policy", "sections"),
    [
        ("script-src 'self'; style-src 'self'", ["script-src", "style-src"]),
        ("default-src 'self'", ["default-src"]),
        ("script-src 'self'; default-src 'self'", ["script-src", "default-src"]),
        ("script-src 'self'; style-src 'unsafe-inline'", ["script-src"]),
        ("default-src 'none'", []),
    ],
)
def test_nonce_sections(policy: str, sections: list[str]) -> None:
    """A nonce goes where it opens what it should, and never switches 'unsafe-inline' off."""
    assert nonce_sections(parse_policy(policy)) == sections


def test_settings_that_browsers_would_ignore() -> None:
    """Preload without its conditions, and what cannot be a header, are refused at start."""
    assert next(SecuritySettings(hsts_preload=True).problems()).startswith("SECURITY_HSTS_PRELOAD")
    assert next(SecuritySettings(csp="default-src\r\nX: y").problems()).startswith("SECURITY_CSP")
    assert next(SecuritySettings(csp_report_path="reports").problems()).startswith("SECURITY_CSP_REPORT_PATH")
    assert next(SecuritySettings(cookie_samesite="None", force_https=False).problems()).startswith(
        "SECURITY_COOKIE"
    )
    assert not list(SecuritySettings().problems())
