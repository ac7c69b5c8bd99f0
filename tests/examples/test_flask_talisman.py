"""Examples of flask-talisman's README (1.1), on `prod.talisman`, the SECURITY_* settings and `csp_nonce()`.

`frame-ancestors` is the kit's own: it follows the frame options unless a policy names it (docs/headers.md).
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import render_template_string
from flask.sansio.scaffold import Scaffold
from flask_talisman import ALLOW_FROM, DEFAULT_CSP_POLICY, DENY, GOOGLE_CSP_POLICY, SAMEORIGIN
from werkzeug.datastructures import Headers

from flask_prod import ProdKit

from .conftest import Example

CSP = "Content-Security-Policy"

SELF = {"default-src": "'self'", "object-src": "'none'"}
TRUSTED = {"default-src": ["'self'", "*.trusted.com"]}
MEDIA = {
    "default-src": "'self'",
    "img-src": "*",
    "media-src": ["media1.com", "media2.com"],
    "script-src": "userscripts.example.com",
}
BANK = {"default-src": "https://onlinebanking.jumbobank.com"}
MAIL = {"default-src": ["'self'", "*.mailsite.com"], "img-src": "*"}
TEXT = "default-src 'self'; image-src *"

POLICIES = [
    pytest.param(SELF, "default-src 'self'; object-src 'none'", id="Example 1"),
    pytest.param(TRUSTED, "default-src 'self' *.trusted.com", id="Example 2"),
    pytest.param(
        MEDIA,
        "default-src 'self'; img-src *; media-src media1.com media2.com; script-src userscripts.example.com",
        id="Example 3",
    ),
    pytest.param(BANK, "default-src https://onlinebanking.jumbobank.com", id="Example 4"),
    pytest.param(MAIL, "default-src 'self' *.mailsite.com; img-src *", id="Example 5"),
    pytest.param(TEXT, TEXT, id="Example 7"),
    pytest.param(DEFAULT_CSP_POLICY, "default-src 'self'; object-src 'none'", id="DEFAULT_CSP_POLICY"),
]


def shown(example: Example, options: dict[str, Any], **config: Any) -> Headers:
    """Return the headers of a page over HTTPS whose view is decorated with *options*."""

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/")
        @prod.talisman(**options)
        def page() -> str:
            return "<p>page"

    return example(declare, **config).get("/", base_url="https://localhost").headers


def test_per_view_options(example: Example) -> None:
    """Per-view options: one view may be embedded by anybody, the other keeps what holds for all.

    What holds for all is the kit's DENY rather than the library's SAMEORIGIN.
    """

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/normal")
        def normal() -> str:
            return "Normal"

        @app.route("/embeddable")
        @prod.talisman(frame_options=ALLOW_FROM, frame_options_allow_from="*")
        def embeddable() -> str:
            return "Embeddable"

    client = example(declare)

    assert client.get("/normal").headers["X-Frame-Options"] == "DENY"
    assert client.get("/embeddable").headers["X-Frame-Options"] == "ALLOW-FROM *"
    assert "frame-ancestors *" in client.get("/embeddable").headers[CSP]


@pytest.mark.parametrize(("option", "ancestors"), [(SAMEORIGIN, "'self'"), (DENY, "'none'")])
def test_frame_options(example: Example, option: str, ancestors: str) -> None:
    """Options, `frame_options`: the constants of the library."""
    headers = shown(example, {"frame_options": option})

    assert headers["X-Frame-Options"] == option
    assert f"frame-ancestors {ancestors}" in headers[CSP]


@pytest.mark.parametrize(("policy", "expected"), POLICIES)
def test_policy_of_a_view(example: Example, policy: Any, expected: str) -> None:
    """Content Security Policy, all examples, for one view."""
    headers = shown(example, {"content_security_policy": policy})

    assert headers[CSP] == f"{expected}; frame-ancestors 'none'"


@pytest.mark.parametrize(("policy", "expected"), POLICIES)
def test_policy_of_all_pages(example: Example, policy: Any, expected: str) -> None:
    """Content Security Policy, all examples, for the application: SECURITY_CSP in place of the constructor."""
    headers = shown(example, {}, SECURITY_CSP=policy)

    assert headers[CSP] == f"{expected}; frame-ancestors 'none'"


def test_policy_for_google(example: Example) -> None:
    """Content Security Policy: the more permissive policy that comes with the library."""
    policy = shown(example, {"content_security_policy": GOOGLE_CSP_POLICY})[CSP]

    assert "script-src 'self' ajax.googleapis.com *.googleanalytics.com *.google-analytics.com" in policy
    assert "frame-src 'self' www.google.com www.youtube.com" in policy


def test_no_policy(example: Example) -> None:
    """Content Security Policy: False sends no such header."""
    assert CSP not in shown(example, {"content_security_policy": False, "frame_options": None})


def test_nonce(example: Example) -> None:
    """Content Security Policy, Example 6: the nonce of the template is in the named directive, new each time.

    Without `content_security_policy_nonce_in` the kit puts it where scripts and styles are governed.
    """
    csp = {"default-src": "'self'", "script-src": "'self'"}
    template = '<script nonce="{{ csp_nonce() }}">//...</script>'

    def declare(prod: ProdKit, app: Scaffold) -> None:
        @app.route("/named")
        @prod.talisman(content_security_policy=csp, content_security_policy_nonce_in=["script-src"])
        def named() -> str:
            return render_template_string(template)

        @app.route("/default")
        @prod.talisman(content_security_policy=csp)
        def default() -> str:
            return render_template_string(template)

    client = example(declare)
    seen = set()
    for path, directive in (("/named", "script-src 'self'"), ("/default", "script-src 'self'")):
        answer = client.get(path)
        nonce = re.search('nonce="([^"]+)"', answer.text)
        assert nonce is not None
        assert f"{directive} 'nonce-{nonce[1]}'" in answer.headers[CSP]
        seen.add(nonce[1])
    assert "default-src 'self';" in client.get("/named").headers[CSP]
    assert len(seen) == 2


@pytest.mark.parametrize("policy", [{"geolocation": "()", "microphone": "()"}, "geolocation=(), microphone=()"])
def test_permissions_policy(example: Example, policy: Any) -> None:
    """Permissions Policy, "Geolocation and Microphone Example": as a dictionary, and as text."""
    assert shown(example, {"permissions_policy": policy})["Permissions-Policy"] == "geolocation=(), microphone=()"


@pytest.mark.parametrize("policy", [{"oversized-images": "?0"}, "oversized-images=?0"])
def test_document_policy(example: Example, policy: Any) -> None:
    """Document Policy, "Oversized-Images Example": as a dictionary, and as text."""
    assert shown(example, {"document_policy": policy})["Document-Policy"] == "oversized-images=?0"


def test_feature_policy(example: Example) -> None:
    """Feature Policy, "Geolocation Example"."""
    headers = shown(example, {"feature_policy": {"geolocation": "'none'"}})

    assert headers["Feature-Policy"] == "geolocation 'none'"


def test_default_configuration(example: Example) -> None:
    """The list at the top of the README: HSTS, a strict policy, no sniffing, the referrer, and no topics.

    HSTS speaks for this host alone, where the library includes subdomains (docs/headers.md, "HTTPS").
    """
    headers = shown(example, {})

    assert headers["Strict-Transport-Security"].startswith("max-age=31536000")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert "browsing-topics=()" in headers["Permissions-Policy"]
    for part in ("default-src 'self'", "object-src 'none'"):
        assert part in headers[CSP]
