"""Traps of redirects to https, and of the security headers' defaults."""

from __future__ import annotations

import pytest
from flask import url_for

from .conftest import OpenShop


@pytest.mark.trap("Talisman redirects health probes and Prometheus, which come by plain HTTP")
def test_trap_22_probes_are_not_redirected(open_shop: OpenShop) -> None:
    """Probes and scrapes are answered by plain HTTP; everything else is redirected."""
    shop = open_shop(by_hand={"talisman": {}, "metrics": "plain"})
    shop.app.add_url_rule("/", "home", lambda: "home")

    for path in ("/healthz", "/metrics"):
        status = shop.visit(path, scheme="http").status_code
        assert status == 200, f"{path} was answered {status}"
    assert shop.visit("/", scheme="http").status_code in (302, 308)


@pytest.mark.trap("Talisman believes anybody's X-Forwarded-Proto, url_for none, and 'https,https' is a loop")
def test_trap_21_one_scheme(open_shop: OpenShop) -> None:
    """The scheme is the one that the trusted proxies say, for redirects and for links."""
    schemes = []
    for hops, sent in ((0, "https"), (1, "https"), (2, "https,https"), (2, "https, http")):
        shop = open_shop(name=f"behind{hops}", hops=hops, by_hand={"talisman": {}})
        shop.app.add_url_rule("/", "home", lambda: url_for("home", _external=True))
        answer = shop.visit("/", scheme="http", X_Forwarded_Proto=sent)
        schemes.append(answer.text if answer.status_code == 200 else answer.status_code)

    assert schemes[0] in (302, 308), "without a proxy, whoever sends X-Forwarded-Proto is not redirected"
    assert schemes[1:] == ["https://shop.example/"] * 3


@pytest.mark.trap("HSTS speaks for all subdomains from the first day, which cannot be taken back quickly")
def test_trap_57_subdomains(open_shop: OpenShop) -> None:
    """HSTS speaks for this host alone, and the newer headers are there."""
    shop = open_shop(by_hand={"talisman": {}})
    shop.app.add_url_rule("/", "home", lambda: "home")

    headers = shop.visit("/").headers

    said = headers["Strict-Transport-Security"]
    assert "includesubdomains" not in said.lower(), said
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]


@pytest.mark.trap(
    "the Content-Security-Policy is one for all: it breaks documentation pages, with no way to try it"
)
def test_trap_57_policies(open_shop: OpenShop) -> None:
    """Programs' answers get the strictest policy; a policy can be tried first by one setting."""
    shop = open_shop(by_hand={"talisman": {}})
    shop.app.add_url_rule("/api", "api", lambda: {"a": 1})
    policy = shop.visit("/api").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy, f"an API answer has {policy!r}"

    trying = open_shop(name="trying", kit={"SECURITY_CSP_REPORT_ONLY": True})
    trying.app.add_url_rule("/", "home", lambda: "home")
    headers = trying.visit("/").headers
    assert "Content-Security-Policy" not in headers
    assert "Content-Security-Policy-Report-Only" in headers
