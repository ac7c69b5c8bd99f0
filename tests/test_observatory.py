"""The scorer itself: that it takes points where the Observatory does."""

from __future__ import annotations

import pytest

from tests.observatory import Answer, Scan, findings, score, verdicts

GOOD = {
    "Content-Type": "text/html",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "Set-Cookie": "session=1; Secure; HttpOnly; Path=/; SameSite=Lax",
}
ROUTE = ("http://shop.example/", "https://shop.example/")


def scan(body: str = "", route: tuple[str, ...] | None = ROUTE, **changes: str | None) -> Scan:
    """Return the best of all answers with a few headers changed or, by None, left out."""
    renamed = {name.replace("_", "-"): value for name, value in changes.items()}
    headers = [(name, value) for name, value in {**GOOD, **renamed}.items() if value is not None]
    return Scan(answer=Answer(url="https://shop.example/", headers=headers, body=body), route=route)


def test_the_best() -> None:
    """Everything at its best with a cookie is 155: 100 and all the extra credit there is."""
    assert score(scan()) == 155
    assert score(scan(Set_Cookie=None)) == 150


@pytest.mark.parametrize(
    ("rule", "changed", "points"),
    [
        ("csp", {"Content_Security_Policy": None}, -25),
        ("csp", {"Content_Security_Policy": "default-src 'self'; default-src 'none'"}, -25),
        ("csp", {"Content_Security_Policy": "default-src 'self'"}, 5),
        ("csp", {"Content_Security_Policy": "default-src 'self'; script-src 'unsafe-inline'"}, -20),
        ("csp", {"Content_Security_Policy": "default-src 'self'; script-src 'nonce-a' 'unsafe-inline'"}, 5),
        ("csp", {"Content_Security_Policy": "default-src 'self'; script-src 'unsafe-eval'"}, -10),
        ("csp", {"Content_Security_Policy": "default-src 'self'; style-src 'unsafe-inline'"}, 0),
        ("csp", {"Content_Security_Policy": "default-src 'self'; img-src http://a.example"}, -10),
        ("csp", {"Content_Security_Policy": "base-uri 'none'"}, -20),
        ("cookies", {"Set_Cookie": "session=1; HttpOnly; SameSite=Lax"}, -10),
        ("cookies", {"Set_Cookie": "session=1; HttpOnly", "Strict_Transport_Security": None}, -40),
        ("cookies", {"Set_Cookie": "session=1; Secure; SameSite=Lax"}, -30),
        ("cookies", {"Set_Cookie": "session=1; Secure; HttpOnly"}, 0),
        ("cross_origin_opener_policy", {"Cross_Origin_Opener_Policy": "unsafe-none"}, 0),
        ("cross_origin_resource_policy", {"Cross_Origin_Resource_Policy": "nobody"}, -5),
        ("referrer_policy", {"Referrer_Policy": "unsafe-url"}, -5),
        ("strict_transport_security", {"Strict_Transport_Security": "max-age=3600"}, -10),
        ("x_content_type_options", {"X_Content_Type_Options": None}, -5),
        ("x_frame_options", {"Content_Security_Policy": "default-src 'none'"}, -20),
        ("redirection", {"route": ("http://shop.example/",)}, -20),
        ("redirection", {"route": ("http://shop.example/", "https://www.shop.example/")}, -5),
        ("subresource_integrity", {"body": "<script src=https://cdn.example/a.js></script>"}, -5),
        ("subresource_integrity", {"body": "<script src=http://cdn.example/a.js></script>"}, -50),
        ("subresource_integrity", {"body": "<script src=/a.js></script>"}, 0),
    ],
)
def test_rule(rule: str, changed: dict[str, str | None], points: int) -> None:
    """A rule gives the points of SCORE_TABLE."""
    assert verdicts(scan(**changed))[rule][1] == points  # type: ignore[arg-type]  # body and route among headers


def test_no_extra_credit_below_ninety() -> None:
    """Extra credit counts only where little was lost."""
    assert score(scan(Strict_Transport_Security=None)) == 80


def test_foreign_origin() -> None:
    """An origin that is reflected with credentials costs fifty points."""
    headers = [
        ("Access-Control-Allow-Origin", "https://evil.example"),
        ("Access-Control-Allow-Credentials", "true"),
    ]
    foreign = Answer(url="https://shop.example/", headers=headers, origin="https://evil.example")

    assert verdicts(Scan(answer=scan().answer, foreign=foreign))["cors"] == ("universal access", -50)


def test_findings() -> None:
    """A directive that is missing lets everything through."""
    loose = scan(Content_Security_Policy="script-src 'self'").answer

    assert findings(scan().answer) == []
    assert findings(loose) == ["base-uri", "frame-ancestors", "form-action", "object-src"]
