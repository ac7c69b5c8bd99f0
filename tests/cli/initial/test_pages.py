"""What the default Content-Security-Policy blocks in templates is told before a user sees it in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_prod.cli.initial.pages import blocked
from flask_prod.cli.initial.project import Project


def said(folder: Path, html: str, name: str = "shop/templates/shop/base.html") -> list[str]:
    """Return what is told of a project with one template."""
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_text(html)
    return list(blocked(Project(folder)))


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ("<p>\n<script>go()</script>", "line 2: inline scripts are blocked"),
        ('<button onclick="go()">{{ _("Go") }}</button>', "line 1: inline scripts"),
        ("<style>p {}</style>", "inline styles"),
        ('<p style="color: red">', "inline styles"),
        ('<br style="clear: both" />', "inline styles"),
        ('{% block x %}<script src="https://cdn.example.com/x.js"></script>', "other hosts (cdn.example.com)"),
        ('<link rel="Stylesheet" href="//cdn.example.com/x.css">', "other hosts (cdn.example.com)"),
        ('<img src="https://a.example/1"><img src="https://b.example/2">', "1 more: files of other"),
    ],
)  # fmt: skip
def test_blocked(html: str, words: str, tmp_path: Path) -> None:
    """Each kind is told once with its first place, and how to begin without blocking anything."""
    first, last = said(tmp_path, html)

    assert first.startswith("shop/templates/shop/base.html, line ")
    assert words in first
    assert "SECURITY_CSP_REPORT_ONLY=true" in last


@pytest.mark.parametrize(
    "html",
    [
        '<script src="{{ url_for("static", filename="x.js") }}"></script>',
        '<script nonce="{{ csp_nonce() }}">go()</script><style nonce="{{ csp_nonce() }}"></style>',
        '<script type="application/json">{"a": "<p style=1>"}</script>',
        '<a href="https://example.com">x</a> <link rel="canonical" href="https://example.com">',
        '<img src="{{ cdn }}/x.png"><img src="/x.png"><p class="{% if on %}on{% endif %}">',
        "<script",
    ],
)
def test_not_blocked(html: str, tmp_path: Path) -> None:
    """Nonces, own files, plain links and data are fine."""
    assert said(tmp_path, html) == []


def test_only_templates(tmp_path: Path) -> None:
    """Pages that are no templates of the application are not read."""
    assert said(tmp_path, "<script>x</script>", "docs/index.html") == []
    assert said(tmp_path, "<p style='color: red'>", "shop/templates/emails/receipt.html") == []
    assert said(tmp_path, "<script>x</script>", "tests/templates/index.html") == []
