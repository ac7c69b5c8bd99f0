"""What may be shown of values that could be secret: by the names they go by, and by how they look.

Used wherever something leaves the process for people to read: logs, error reports, pages.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from traceback import walk_tb
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, quote_plus

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

REDACTED = "[redacted]"
_DEEPEST = 8
_MOST_ITEMS = 100
_MOST_SEARCHED = 1000
_MOST_FRAMES = 100
_FLASK_FRAMES = 5
"""Flask's own frames come first; the one that holds the request's context is among these."""

_LONGEST = 8192
_SHORTEST_SECRET = 5
"""A shorter value is not looked for elsewhere: too much would match."""

_SHORTEST_COOKIE = 8
"""A shorter cookie value (`theme=dark`) is a word, not a secret."""

_SENSITIVE = re.compile(
    r"passw|passphrase|pwd|secret|token|authorization|cookie|credential|cardnumber|creditcard|cardno|cvv|cvc|iban"
    r"|apikey|privatekey|accesskey|signingkey|encryptionkey|signature|csrf|xsrf|sessionid|jwt"
    r"|^(auth|card|pan|ssn|pin|otp|session|dsn|sentrydsn|sid)$"
)
_RUN = re.compile(r"[\w+/=%~-]+")
_EXAMPLE = ":password@"
_WORDS = re.compile(r"[\w+=%~-]+")
_DIGITS = re.compile(r"\d")
_CHANGES = re.compile(r"(?<=\d)[A-Za-z]|(?<=[A-Za-z])\d|(?<=[a-z])[A-Z]")
_SHORTEST_KEY = 10
_LONGEST_WORD = 40
_NAME = re.compile(
    r"((access|api|auth|authentication|authorization|basic|bearer|client|cookie|credentials?|csrf|field|header|id|jwt|key|login"
    r"|passw(or)?d|refresh|secret|session|set|sid|token|user|x|xsrf)[_-]?)+",
    re.IGNORECASE,
)
_NOT_LETTERS = re.compile(r"[^a-z0-9]+")

_WORD = r"[\w.-]{0,40}(?:passw|passphrase|pwd|secret|token|credential|api[_-]?key|private[_-]?key|access[_-]?key|cvv|cvc|card[_-]?n)[\w-]{0,40}"  # noqa: E501  # one expression reads better whole
_IN_TEXT: tuple[tuple[re.Pattern[str], str], ...] = (
    # Authorization: Bearer abc, and the scheme alone.
    (re.compile(r"\b(bearer|basic|digest)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    # Cookie: everything to the end of the line.
    (re.compile(r"\b((?:set-)?cookie\s*:\s*)[^\r\n]+", re.IGNORECASE), rf"\1{REDACTED}"),
    # redis://user:password@host
    (re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{0,64}:)[^\s/@]{1,256}@", re.IGNORECASE), rf"\1{REDACTED}@"),
    # https://key@host/1, as Sentry writes its address
    (re.compile(r"(\bhttps?://)[^\s/:@]{8,128}@", re.IGNORECASE), rf"\1{REDACTED}@"),
    # password=abc, "password": "abc", password: abc
    (re.compile(rf"\b({_WORD}[\"']?\s*[:=]\s*)(?:\"[^\"]*\"|'[^']*'|[^\s\"'&,;)}}\]]+)", re.IGNORECASE), rf"\1{REDACTED}"),  # noqa: E501  # one expression reads better whole
    # A JSON Web Token, wherever it stands.
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*"), REDACTED),
)  # fmt: skip
_SUSPECT = re.compile(r"[:=]|eyJ|bearer|basic|digest|\d[\d -]{11}", re.IGNORECASE)
"""What each expression above and below needs in order to match: most texts have none of it."""

_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])")


@lru_cache(maxsize=4096)
def is_sensitive(name: str) -> bool:
    """Tell whether a value of this name is nobody's business: password, api_key, cardNumber, Set-Cookie."""
    return _SENSITIVE.search(_NOT_LETTERS.sub("", name[:200].lower())) is not None


def redact(value: object, depth: int = 0) -> object:
    """Return *value* as plain data that may be shown: secrets starred, long values cut, the rest as text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact_text(shorten(value))
    if depth >= _DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        pairs = list(value.items())[:_MOST_ITEMS]
        return {shorten(str(k), 200): redact_named(str(k), v, depth) for k, v in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, depth + 1) for item in list(value)[:_MOST_ITEMS]]
    try:
        return redact_text(shorten(str(value)))
    except Exception:
        return f"<{type(value).__name__}>"


def redact_named(name: str, value: object, depth: int = 0) -> object:
    """Return *value* as it may be shown under *name*."""
    return REDACTED if is_sensitive(name) else redact(value, depth + 1)


def redact_text(text: str) -> str:
    """Star out what looks like a secret in free text: named values, credentials in addresses, tokens, cards."""
    if _SUSPECT.search(text) is None:
        return text
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return _CARD.sub(_starred_card, text)


def redact_query(query: str) -> str:
    """Return a query string with the values of sensitive names starred out."""
    pairs = (pair.partition("=") for pair in query[:_LONGEST].split("&") if pair)
    return "&".join(
        name + sign + (REDACTED if is_sensitive(name) else redact_text(value)) for name, sign, value in pairs
    )


def shown_path(path: str, route: str | None) -> str:
    """Return a request's path as it may be shown: `/reset/<token>` rather than the token that stood there."""
    if route is None:
        return redact_text(path)
    return route if takes_secret(route) else path


@lru_cache(maxsize=1024)
def takes_secret(route: str) -> bool:
    """Tell whether a route has a place for a secret: `/reset/<token>`."""
    return any(is_sensitive(part) for part in route.split("<")[1:])


def is_random(text: str) -> bool:
    """Tell whether *text* looks like a key, or holds one: people write no words like `x7Qp2LkVb93tZ`."""
    return any(len(run) > _LONGEST_WORD or _mixed(run) for run in _RUN.findall(text))


def without_keys(text: str) -> str:
    """Star out, beside what `redact_text` finds, every word of *text* that looks like a key."""
    # Sentences show how an address is written: redis://:password@host.
    shown = _EXAMPLE.join(redact_text(part) for part in text.split(_EXAMPLE))
    return _WORDS.sub(lambda match: REDACTED if _mixed(match[0]) else match[0], shown)


def _mixed(run: str) -> bool:
    return len(run) >= _SHORTEST_KEY and _DIGITS.search(run) is not None and len(_CHANGES.findall(run)) >= 3


def shorten(text: str, longest: int = _LONGEST) -> str:
    """Cut *text* to *longest* characters and say how much is missing."""
    return text if len(text) <= longest else f"{text[:longest]}...[{len(text) - longest} more]"


def hide(text: str, forms: Iterable[str]) -> str:
    """Star out every occurrence of *forms*, as `forms_of` gives them."""
    for form in forms:
        if form in text:
            text = text.replace(form, REDACTED)
    return text


def forms_of(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return the ways in which *secrets* may be written: plain, quoted for Python or an address, base64."""
    wanted = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET and not is_word(secret)}
    forms = {form for secret in wanted for form in _forms(secret)}
    return tuple(sorted(forms, key=len, reverse=True))


def is_word(text: str) -> bool:
    """Tell whether *text* is what a secret is called (`session`, `access_token`) rather than one."""
    return len(text) <= _LONGEST_WORD and _NAME.fullmatch(text) is not None


def secrets_sent(environ: WSGIEnvironment) -> set[str]:
    """Return what a request carries that is secret: credentials, cookies, in address and parsed body."""
    found = {str(value) for key, value in environ.items() if key[:5] == "HTTP_" and is_sensitive(key[5:])}
    found.update(environ.get("HTTP_AUTHORIZATION", "").split(" ", 1))
    found.update(
        value for name, value in parse_qsl(environ.get("QUERY_STRING", "")[:_LONGEST]) if is_sensitive(name)
    )
    cookies = (pair.partition("=")[2].strip() for pair in environ.get("HTTP_COOKIE", "").split(";"))
    found.update(value for value in cookies if len(value) >= _SHORTEST_COOKIE)
    found.update(secrets_read(environ.get("werkzeug.request")))
    found.update(_basic_password(environ.get("HTTP_AUTHORIZATION", "")))
    return found - {"Bearer", "Basic", "Digest", "bearer", "basic"}


def secrets_of_path(request: object) -> Iterator[str]:
    """Yield what stood in the path where its route takes a secret: `/reset/<token>`."""
    values: Mapping[str, object] = getattr(request, "view_args", None) or {}
    return (str(value) for name, value in values.items() if is_sensitive(name))


def secrets_read(request: object) -> Iterator[str]:
    """Yield what is secret in path and body as far as the application has parsed them; nothing is for this."""
    yield from secrets_of_path(request)
    read = getattr(request, "__dict__", {})
    if "form" in read:
        yield from secrets_under(dict(read["form"].lists()))
    for parsed in read.get("_cached_json", ()):
        yield from secrets_under(parsed)


def secrets_under(node: object, under: bool = False, depth: int = 0) -> Iterator[str]:
    """Yield every text that stands under a secret's name, at any depth."""
    if depth > 3 * _DEEPEST:
        return
    if isinstance(node, Mapping):
        for key, value in islice(node.items(), _MOST_SEARCHED):
            yield from secrets_under(value, under or is_sensitive(str(key)), depth + 1)
    elif isinstance(node, list | tuple):
        for item in node[:_MOST_SEARCHED]:
            yield from secrets_under(item, under, depth + 1)
    elif under and isinstance(node, str) and node not in (REDACTED, "[Filtered]"):
        yield node[1:-1] if node[:1] in ("'", '"') and node[-1:] == node[:1] else node


def secrets_held(error: BaseException) -> Iterator[str]:
    """Yield what the variables of an error's frames, and those of its causes, hold under a secret's name.

    What the request behind it had sent that was parsed is among it.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        for number, (frame, _) in enumerate(islice(walk_tb(current.__traceback__), _MOST_FRAMES)):
            yield from secrets_under(frame.f_locals)
            if number < _FLASK_FRAMES:  # when the request's own record of it is gone already
                yield from secrets_read(getattr(frame.f_locals.get("ctx"), "request", None))
        current = current.__cause__ or current.__context__


def _basic_password(authorization: str) -> Iterator[str]:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            yield base64.b64decode(value).decode(errors="replace").partition(":")[2]
        except ValueError:
            return


def _forms(secret: str) -> Iterator[str]:
    raw = secret.encode(errors="replace")
    yield from (secret, repr(secret)[1:-1], quote(raw), quote(raw, safe=""), quote_plus(raw))
    yield base64.b64encode(raw).decode().rstrip("=")
    yield base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _starred_card(match: re.Match[str]) -> str:
    digits = [int(character) for character in match[0] if character.isdigit()]
    doubled = (digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2])
    return REDACTED if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 else match[0]
