"""Which origins are on the list: the whole of each is compared."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prod.components.cors.origins import Origins, origin_problems

LIST = ("https://app.example.com", "https://*.example.org", "http://localhost:3000", "http://[::1]:3000")

WRONG = (
    "null",
    "",
    "https://app.example.com.evil.net",
    "https://evilapp.example.com",
    "https://app.example.co",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com/",
    "https://app.example.com.",
    "https://APP.example.com",
    "https://example.org",
    "https://evilexample.org",
    "https://.example.org",
    "https://-.example.org",
    "https://a..example.org",
    "https://a.example.org.",
    "https://a.example.org.evil.net",
    "https://a.example.org:8443",
    "http://a.example.org",
    "https://evil.net/.example.org",
    "https://evil.net#.example.org",
    "https://evil.net?.example.org",
    "https://user@evil.net\\.example.org",
    "https://evil.net:80.example.org",
    "https://a.example.org, https://b.example.org",
    "https://a.example.org,https://b.example.org",
    "https://a.exämple.org",
    "https://ä.example.org",
    "https://a.example.org\n",
    "https://A.example.org",
    "file://",
    "httpx://a.example.org",
    "https://" + "a" * 400 + ".example.org",
)


@pytest.mark.parametrize("origin", WRONG)
def test_trap_02_look_alikes(origin: str) -> None:
    """Look-alikes by suffix, prefix, scheme, port, case, dot, list or alphabet are not on the list."""
    assert not Origins.parse(LIST).lists(origin)


@pytest.mark.parametrize("origin", [origin for origin in WRONG if len(origin) < 300])
def test_trap_02_look_alikes_of_the_decorator(origin: str) -> None:
    """The patterns that `@cross_origin` gets from us are anchored: the library compares them by match."""
    patterns = [pattern for pattern in Origins.parse(LIST).patterns() if isinstance(pattern, re.Pattern)]

    assert not [pattern for pattern in patterns if pattern.match(origin)]


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "https://a.example.org",
        "https://a-1.b.example.org",
        "http://localhost:3000",
        "http://[::1]:3000",
    ],
)
def test_listed(origin: str) -> None:
    """Exact origins and true subdomains of any depth are on the list, for the decorator as well."""
    origins = Origins.parse(LIST)

    assert origins.lists(origin)
    assert [p for p in origins.patterns() if isinstance(p, re.Pattern) and p.match(origin)]


@given(st.text(alphabet="abz09-._:/@#?,\\ \n\tA", max_size=20))
def test_nothing_but_host_labels_stands_for_the_star(middle: str) -> None:
    """Whatever is put in the place of the star, only labels of a host name pass."""
    if Origins.parse(("https://*.example.org",)).lists(f"https://{middle}.example.org"):
        assert re.fullmatch(r"[a-z0-9_.-]+", middle)
        assert not middle.startswith((".", "-"))


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (r"https://.*\.example\.com", "scheme, host and port"),
        (r"^https://app\.example\.com$", "scheme, host and port"),
        (re.compile("https://.*"), "look-alikes"),
        ("https://*", "scheme, host and port"),
        ("*.example.com", "scheme, host and port"),
        ("example.com", "scheme, host and port"),
        ("https://*.com", "every site under .com"),
        ("https://app.*.example.com", "scheme, host and port"),
        ("null", "sandboxed"),
        ("https://app.example.com/", "write that"),
        ("https://App.Example.com", "https://app.example.com"),
        ("https://app.example.com:443", "default port"),
        ("https://*.example.com:443", "default port"),
        ("https://münchen.de", "xn--"),
        ("https://app.example.com/path", "scheme, host and port"),
    ],
)
def test_what_matches_otherwise_than_it_looks_is_refused(value: object, advice: str) -> None:
    """Anything like a regular expression, or that no browser sends, is explained at start."""
    (problem,) = origin_problems([value], "ALLOWED_ORIGINS")

    assert problem.startswith("ALLOWED_ORIGINS has ")
    assert advice in problem


@pytest.mark.parametrize(
    "value", ["*", *LIST, "capacitor://localhost", "chrome-extension://abcdef", "http://*.localhost:3000"]
)
def test_good_values(value: str) -> None:
    """Web, app and extension origins are accepted."""
    assert not list(origin_problems([value], "ALLOWED_ORIGINS"))
