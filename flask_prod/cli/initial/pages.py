"""What the default Content-Security-Policy would block in an application's templates: inline code, other hosts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

from .project import MOST, Project, is_own

_SUFFIXES = (".html", ".htm", ".jinja", ".jinja2", ".j2")
_MAIL = frozenset({"email", "emails", "mail", "mails"})
"""Folders of templates that no browser gets with a policy."""

_DATA = ("application/json", "application/ld+json", "text/template", "importmap")
"""Types of scripts that are no code."""

_LOADING = frozenset({"script", "link", "img", "iframe", "audio", "video", "source", "embed"})
_LINKS = frozenset({"stylesheet", "preload", "icon", "modulepreload", "manifest"})

SCRIPT, STYLE, HOST = "inline scripts", "inline styles", "files of other hosts"
HELP = {
    SCRIPT: 'give each a nonce="{{ csp_nonce() }}", and turn on...= attributes into listeners',
    STYLE: 'give <style> a nonce="{{ csp_nonce() }}", and turn style= attributes into classes',
    HOST: "name the hosts in SECURITY_CSP, or serve the files from static/",
}


def blocked(project: Project) -> Iterator[str]:
    """Yield a line for each kind of content that browsers would not run or load; none where all is well."""
    found: dict[str, list[str]] = {}
    hosts: dict[str, None] = {}
    for path in _templates(project.root):
        reader = _Reader()
        reader.feed(path.read_text(encoding="utf-8", errors="replace"))
        hosts.update(dict.fromkeys(reader.hosts))
        for kind, line in reader.found:
            found.setdefault(kind, []).append(f"{project.shown(path.resolve())}, line {line}")
    for kind, places in found.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        names = f" ({', '.join(hosts)})" if kind == HOST else ""
        yield f"{places[0]}{more}: {kind}{names} are blocked by the default SECURITY_CSP; {HELP[kind]}."
    if found:
        yield "SECURITY_CSP_REPORT_ONLY=true blocks none of these, and counts them, until the pages are ready."


class _Reader(HTMLParser):
    """Reads one template; what Jinja does in it is text or odd attributes to it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, int]] = []
        self.hosts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the content policy would block in one element."""
        values = {name: value or "" for name, value in attrs}
        if tag == "script" and "src" not in values and "nonce" not in values and values.get("type") not in _DATA:
            self._note(SCRIPT)
        if any(name.startswith("on") and name.isalpha() for name in values):
            self._note(SCRIPT)
        if "style" in values or (tag == "style" and "nonce" not in values):
            self._note(STYLE)
        host = _host(tag, values)
        if host:
            self.hosts.append(host)
            self._note(HOST)

    handle_startendtag = handle_starttag

    def _note(self, kind: str) -> None:
        self.found.append((kind, self.getpos()[0]))


def _host(tag: str, values: dict[str, str]) -> str:
    """Return the other host that an element loads from; empty for one that loads nothing, or from here."""
    if tag not in _LOADING or (tag == "link" and not _LINKS & set(values.get("rel", "").lower().split())):
        return ""
    address = values.get("href" if tag == "link" else "src", "").strip()
    if "{" in address or not address.startswith(("http://", "https://", "//")):
        return ""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _templates(root: Path) -> Iterator[Path]:
    count = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if is_own(Path(folder, name)))
        parts = Path(folder).relative_to(root).parts
        if "templates" not in parts or _MAIL & set(parts):
            continue
        for name in sorted(files):
            count += 1
            if name.endswith(_SUFFIXES) and count <= MOST:
                yield Path(folder, name)
