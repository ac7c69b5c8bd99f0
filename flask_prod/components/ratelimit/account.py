"""What the limits of one request came to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from flask_limiter import RequestLimit
    from werkzeug.wrappers import Response as WerkzeugResponse

    from .engine import Standing, Verdict
    from .plan import Limits, Subjects


class Account(msgspec.Struct, eq=False):
    """What the limits of one request came to; lies in `record.limits` until the headers are made.

    One is made per request, which a msgspec structure does in half the time of a class.
    """

    limits: Limits | None = None
    standing: Standing | None = None
    verdict: Verdict | None = None
    retry_after: int = 0
    library: RequestLimit | None = None
    simple: bool = False
    """Nothing more is to be done than to say where it stands."""

    local: bool = False
    here: bool = False
    pending: Subjects | None = None
    response: WerkzeugResponse | None = None


SPARED = Account()
"""The account of a request from an exempt network; nothing is ever written into it."""
