"""Versions of libraries with known trouble; kept by hand, and asked of what is installed, without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

_NUMBERS = re.compile(r"\d+")

TROUBLED: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("Werkzeug", (3, 0, 6), "a multipart body takes all memory (CVE-2024-49767)"),
    ("Jinja2", (3, 1, 6), "templates leave their sandbox (CVE-2025-27516)"),
    ("gunicorn", (23, 0, 0), "requests are smuggled past the proxy (CVE-2024-6827)"),
    ("Flask-Cors", (6, 0, 0), "paths match origins they should not (CVE-2024-6839)"),
    ("requests", (2, 32, 4), "credentials of .netrc leak (CVE-2024-47081)"),
    ("urllib3", (2, 5, 0), "redirects cannot be switched off (CVE-2025-50181)"),
    ("PyJWT", (2, 4, 0), "a public key signs tokens (CVE-2022-29217)"),
    ("python-jose", (3, 4, 0), "a public key signs tokens (CVE-2024-33663)"),
    ("Authlib", (1, 3, 1), "a public key signs tokens (CVE-2024-37568)"),
    ("PyYAML", (5, 4, 0), "full_load runs code (CVE-2020-14343)"),
    ("Pillow", (10, 3, 0), "an image writes past its buffer (CVE-2024-28219)"),
    ("sentry-sdk", (2, 8, 0), "subprocesses inherit the environment (CVE-2024-40647)"),
    ("idna", (3, 7, 0), "one long host name takes a core (CVE-2024-3651)"),
)
"""Name, the first version that is free of it, and what is wrong before."""


def installed(name: str) -> tuple[int, ...] | None:
    """Return the version of a distribution as numbers, None where it is not installed."""
    try:
        return tuple(int(part) for part in _NUMBERS.findall(version(name))[:3])
    except PackageNotFoundError:
        return None


def troubled() -> Iterator[tuple[str, str, str, str]]:
    """Yield name, version, first good version and trouble of what is installed and known to be bad."""
    for name, good, why in TROUBLED:
        found = installed(name)
        if found is not None and found < good:
            yield name, ".".join(map(str, found)), ".".join(map(str, good)), why
