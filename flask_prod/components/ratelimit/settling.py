"""After the answer is known: which limits it counts under."""

from __future__ import annotations

import logging
from collections.abc import Callable

from werkzeug.wrappers import Response

from flask_prod.core.component import HeaderList
from flask_prod.core.record import RequestRecord

from .account import Account
from .chosen import Chosen, counts
from .plan import Limits

logger = logging.getLogger(__name__)


def keep_response(account: Account) -> Callable[[Response], Response]:
    """Return what keeps the view's response for functions that ask more than its status."""

    def keep(response: Response) -> Response:
        account.response = response
        return response

    return keep


def chosen_limits(limits: Limits, record: RequestRecord, account: Account, headers: HeaderList) -> list[int]:
    """Return the numbers of the limits that count this answer.

    An answer that no view made (a crash) is shown to functions as its status and headers.
    """

    def response() -> Response:
        if account.response is None:
            account.response = Response(status=record.status, headers=list(headers))
        return account.response

    return [index for index in limits.chosen if _counts(limits.policies[index].chosen, record.status, response)]


def _counts(chosen: Chosen | None, status: int, response: Callable[[], Response]) -> bool:
    try:
        return chosen is None or counts(chosen, status, response)
    except Exception:
        # Counting too much is the safe side: what is limited by chosen answers is mostly sign-in.
        logger.exception("a limit's count function failed; the answer counts")
        return True
