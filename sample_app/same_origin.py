"""Refuses forms that another site submits in a visitor's name.

Why without a token: every browser of the last years says where a POST comes from, by `Sec-Fetch-Site` and by
`Origin`, and no script can change either. The check needs no state, so the pages with forms stay the same for
everybody and can be cached; a token would put a cookie and something secret into each. It covers signing in as
well, where no session exists to keep a token in. The cookie's SameSite=Lax is the second lock on the same door.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import abort, request

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def require_same_origin() -> None:
    """Answer 403 to a form that does not come from one of our own pages, or does not say where it comes from."""
    if request.method in _SAFE:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        trusted = site in ("same-origin", "none")
    else:
        # Over plain HTTP browsers leave the first header out.
        trusted = urlsplit(request.headers.get("Origin", "")).netloc == request.host
    if not trusted:
        abort(403, "This form was not sent from a page of the shop. Please open the shop itself and try again.")
