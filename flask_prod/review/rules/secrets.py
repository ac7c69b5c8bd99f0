"""Whether secrets are strong, different from one another, and where nobody else reads them."""

from __future__ import annotations

import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flask_prod.core.gate import tokens_of
from flask_prod.core.values import Secret
from flask_prod.review.rule import ERROR, WARNING, Chmod, Evidence, Evidences, NewSecret, rule
from flask_prod.review.subject import Subject

LEAST_BITS = 80.0
"""A guess of the randomness in a text; 16 hex digits at random have 64, 24 letters and digits some 110."""

LEAST_LENGTH = 16
MOST_FALLBACKS = 3

_KNOWN = re.compile(
    r"(change|replace|fix|fill|edit|set)[ _-]?(me|this|it|in)|secret|passw|insecure|example|default"
    r"|dummy|placeholder|hard[ _-]to[ _-]guess|never[ _-]guess"
    r"|^(dev|test|local|prod|staging|admin|root|token|key|foo|bar|abc|123|qwerty|letmein)",
    re.IGNORECASE,
)
_FROM_DOCUMENTATION = ("192b9bdd22ab9ed4", "_5#y2L", "\\xf9'\\xe4p", "\\xfd{H\\xe5<")
"""How the keys of Flask's own pages, of several years, begin."""

_APART = re.compile(r"[^A-Za-z]+")

WEAK_PASSWORDS = frozenset(
    {
        "password",
        "passw0rd",
        "postgres",
        "postgresql",
        "mysql",
        "mariadb",
        "redis",
        "valkey",
        "root",
        "admin",
        "secret",
        "changeme",
        "change-me",
        "guest",
        "test",
        "dev",
        "example",
        "default",
        "letmein",
        "123456",
        "12345678",
        "pass",
        "pwd",
        "foobared",
        "toor",
    }
)


def well_known(text: str) -> bool:
    """Tell whether a secret is one of tutorials; a random one that begins with `dev` by chance is not."""
    if text.startswith(_FROM_DOCUMENTATION):
        return True
    words = [word for word in _APART.split(text) if word]
    wordy = len(words) > 2 and all(len(word) <= 12 for word in words)
    return _KNOWN.search(text) is not None and (bits(text) < LEAST_BITS or (wordy and _is_prose(text)))


def _is_prose(text: str) -> bool:
    """Tell whether a text is words between separators: in random ones digits and capitals stand anywhere."""
    return text == text.lower() and sum(sign.isdigit() for sign in text) <= 4


def bits(text: str) -> float:
    """Guess how random a text is: Shannon's measure over its characters, less where they repeat as a pattern."""
    if not text:
        return 0.0
    counts, size = Counter(text), len(text)
    entropy = -sum(n / size * math.log2(n / size) for n in counts.values())
    period = next((n for n in range(1, size // 2 + 1) if text[:n] * (size // n) == text[: size // n * n]), size)
    steps = {ord(b) - ord(a) for a, b in pairwise(text)}
    return entropy * (1 if len(steps) == 1 else period)


@rule(
    "P101", ERROR, "SECRET_KEY is missing",
    remedy="flask prod secret generate SECRET_KEY --env >> .env, or a secret file: see docs/secrets.md.",
)  # fmt: skip
def missing_key(subject: Subject) -> Evidences:
    """Without it Flask signs no session: the first view that stores one answers 500."""
    app = subject.app
    if app is None or app.secret_key:
        return
    uses = next(iter(_signers(subject)), None)
    if uses is not None:
        yield Evidence(f"SECRET_KEY is empty, and {uses} needs it", "SECRET_KEY", fix=NewSecret("SECRET_KEY"))


@rule(
    "P102", ERROR, "A secret is a well-known value",
    remedy="Make a new one: flask prod secret generate NAME. Do not keep the old one among the fallbacks.",
)  # fmt: skip
def known(subject: Subject) -> Evidences:
    """Values from tutorials are the first that are tried: with SECRET_KEY anybody signs in as anybody."""
    for key, text in _single(subject):
        if well_known(text):
            yield Evidence(f"{key} is a value from a tutorial or template ({_print(text)})", key)


@rule(
    "P103", ERROR, "A secret is weak",
    remedy="Make one of 32 random bytes: flask prod secret generate NAME.",
)  # fmt: skip
def weak(subject: Subject) -> Evidences:
    """A short or regular value is found by trying: session cookies are tested offline, millions a second."""
    for key, text in _single(subject):
        if well_known(text):
            continue
        if len(text) < LEAST_LENGTH:
            yield Evidence(f"{key} ({_print(text)}) has {len(text)} characters, not {LEAST_LENGTH} or more", key)
        elif bits(text) < (LEAST_BITS if len(text) >= 24 else 48):
            yield Evidence(f"{key} ({_print(text)}) is regular: about {bits(text):.0f} bits of chance", key)


@rule(
    "P104", ERROR, "A password in an address is a well-known one",
    remedy="Give the account a password of its own: flask prod secret generate --format letters.",
)  # fmt: skip
def known_password(subject: Subject) -> Evidences:
    """Default passwords are tried by every scanner that reaches the port."""
    found = {key: _credentials(url) for key, url in subject.addresses.items()}
    found["REDIS_PASSWORD"] = ("", subject.text("REDIS_PASSWORD"))
    for key, (user, password) in found.items():
        if password and (password.lower() in WEAK_PASSWORDS or password == user or len(password) < 6):
            yield Evidence(f"{key} has a password from the list of those tried first ({_print(password)})", key)


@rule(
    "P105", WARNING, "Two settings share one secret",
    remedy="Give each its own: flask prod secret generate NAME.",
)  # fmt: skip
def shared(subject: Subject) -> Evidences:
    """Whoever learns one of them, as a scraper learns METRICS_TOKEN, then has the other as well."""
    texts = {key: text for key, text in subject.secrets.items() if "FALLBACKS" not in key}
    texts |= {key: password for key, url in subject.addresses.items() if (password := _credentials(url)[1])}
    for (one, left), (other, right) in combinations(sorted(texts.items()), 2):
        same_place = {one, other} <= {"DATABASE_URL", "DATABASE_REPLICA_URLS", "SQLALCHEMY_DATABASE_URI"}
        if left == right and not same_place and {one, other} != {"REDIS_PASSWORD", "REDIS_URL"}:
            yield Evidence(f"{one} and {other} are the same ({_print(left)})", one)


@rule(
    "P106", WARNING, "SECRET_KEY_FALLBACKS holds too many keys, or the current one",
    remedy="Keep the keys whose sessions may still live, one or two, and remove the others.",
)  # fmt: skip
def fallbacks(subject: Subject) -> Evidences:
    """Each old key still signs in whoever has it: a leaked one must not be among them."""
    keys = [one if isinstance(one, str) else str(one) for one in subject.config("SECRET_KEY_FALLBACKS") or ()]
    if len(keys) > MOST_FALLBACKS:
        yield Evidence(f"SECRET_KEY_FALLBACKS has {len(keys)} keys", "SECRET_KEY_FALLBACKS")
    if subject.app is not None and subject.app.secret_key in keys:
        yield Evidence("SECRET_KEY_FALLBACKS holds the current SECRET_KEY", "SECRET_KEY_FALLBACKS")


@rule(
    "P107", ERROR, "A secret stands in a profile file",
    remedy='Take it out, and replace it since it was seen; NAME = "${NAME}" takes it from the environment.',
)  # fmt: skip
def in_profile(subject: Subject) -> Evidences:
    """Profiles are part of the code: whoever reads the repository, or an image of it, has the secret."""
    texts = {key: text for key, text in subject.secrets.items() if len(text) >= 6}
    texts |= {key: word for key, url in subject.addresses.items() if len(word := _credentials(url)[1]) >= 6}
    for path in dict.fromkeys(subject.profile_files()):
        written = path.read_text(encoding="utf-8", errors="replace")
        for key, text in texts.items():
            if text in written:
                yield Evidence(f"{key} ({_print(text)}) is written in {path.name}", key, path)


@rule(
    "P108", ERROR, "Others may read a file with secrets",
    remedy="chmod 600 FILE; --fix does it.",
)  # fmt: skip
def readable(subject: Subject) -> Evidences:
    """Every user and every program on the host then has what is in it."""
    for path in _secret_files(subject):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o007 and not _mounted(path):
            yield Evidence(f"{path.name} has mode {mode:o}", "", path, Chmod(path, 0o600))


@rule(
    "P109", ERROR, "A file with secrets is under version control",
    remedy="git rm --cached .env, name it in .gitignore, and replace every secret that was in it.",
)  # fmt: skip
def committed(subject: Subject) -> Evidences:
    """It stays in the history of every clone, also after it was removed."""
    index = subject.folder / ".git" / "index"
    name = Path(subject.environ.get("ENV_FILE") or ".env").name
    if index.is_file() and bytes([0, len(name)]) + name.encode() + b"\0" in index.read_bytes():
        yield Evidence(f"{name} is in the index of git", "", subject.folder / name)


@rule(
    "P110", ERROR, "Access tokens never expire",
    remedy="Set JWT_ACCESS_TOKEN_EXPIRES to some minutes, and refresh tokens to days.",
)  # fmt: skip
def endless_tokens(subject: Subject) -> Evidences:
    """A token that leaks from a log or a laptop is good for ever, and cannot be taken back."""
    for key in ("JWT_ACCESS_TOKEN_EXPIRES", "JWT_REFRESH_TOKEN_EXPIRES"):
        if subject.uses("flask-jwt-extended") and subject.config(key) is False:
            yield Evidence(f"{key} is false", key)


@rule(
    "P111", WARNING, "The folder of secrets is not there",
    remedy="Mount it, or take SECRETS_DIR away; without it files in /run/secrets are read.",
)  # fmt: skip
def no_folder(subject: Subject) -> Evidences:
    """What lies there is not read, and nobody says so: a setting without its secret falls back to its default."""
    named = subject.environ.get("SECRETS_DIR") or str(subject.config("SECRETS_DIR") or "")
    if named and named != os.devnull and not (subject.folder / named).is_dir():
        yield Evidence(f"SECRETS_DIR names {named}, which is no folder", "SECRETS_DIR", Path(named))


def _single(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield each secret; of a setting that may hold two, each of them. A password of a server is P104's."""
    for key, text in subject.secrets.items():
        if key.endswith(("PASSWORD", "ACCESS_KEY", "OTLP_HEADERS", "S3_SECRET_KEY")):
            continue
        if key.endswith("_TOKEN"):
            yield from ((key, one) for one in tokens_of(Secret(text)))
        else:
            yield key, text


def _credentials(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        return unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        return "", ""


def _print(text: str) -> str:
    return Secret(text).shown()


def _secret_files(subject: Subject) -> Iterator[Path]:
    names = [subject.environ.get("ENV_FILE") or ".env"]
    if subject.get("TLS_ENABLED"):
        names.append(subject.text("TLS_KEY_FILE"))
    yield from (path for name in names if (path := subject.folder / name).is_file())


def _mounted(path: Path) -> bool:
    """Tell whether an orchestrator mounts the file, for this container alone, with rights of its own choice."""
    place = path.absolute().as_posix()
    return place.startswith(("/run/", "/var/run/")) or (path.parent / "..data").exists()


def _signers(subject: Subject) -> Iterator[str]:
    """Yield what in the application signs with SECRET_KEY."""
    from flask import flash, session

    if subject.app is None:
        return
    known = {"csrf": "Flask-WTF", "security": "Flask-Security"}
    if subject.uses_login:
        yield "Flask-Login"
    yield from (name for key, name in known.items() if subject.uses(key))
    for endpoint, view in subject.app.view_functions.items():
        names = getattr(getattr(view, "__code__", None), "co_names", ())
        scope = getattr(view, "__globals__", {})
        if any(scope.get(name) is session or scope.get(name) is flash for name in names):
            yield f"the view {endpoint}"


RULES = (
    missing_key, known, weak, known_password, shared, fallbacks, in_profile, readable, committed, endless_tokens,
    no_folder,
)  # fmt: skip
