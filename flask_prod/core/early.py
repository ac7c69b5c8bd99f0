"""Answers that need nothing of Flask: found at WSGI level, given once the guards behind routing let them pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from .component import Ask, Contribution, Finder, Stage, Step
from .exchange import Exchange
from .record import RECORD_KEY, RequestRecord

if TYPE_CHECKING:
    from .component import HeaderList, Pairs

logger = logging.getLogger(__name__)

Guard: TypeAlias = tuple[Ask, Callable[[RequestRecord], bool]]
Hook: TypeAlias = "Callable[[RequestRecord, HeaderList], None]"

_MOST_HEADS = 64
"""Heads of one answer that are kept, by origin. With more, all are made anew."""


class Ready(msgspec.Struct, eq=False):
    """A whole answer, made once and given to many: its head, its body, and what the record says of it.

    It is for requests of one route, method, scheme and host. `alike` is what their records have in common.

    `answered` are the names of all of its own headers in lower case, those made anew for each request included.
    `given` is called each time it is given. `heads` are its headers with what steady rooms add, by
    Origin, for as long as the pass is of this `edition`.
    """

    line: str
    headers: Pairs
    body: bytes
    status: int
    answered: frozenset[str]
    content_type: str
    given: Callable[[], None]
    alike: dict[str, Any] = {}
    heads: dict[str | None, Pairs] = {}
    edition: object = None


class Whole(Exchange):
    """An answer that is there as a whole: nothing of it is computed on its way out."""

    rest: list[bytes | None] | None = None
    """What has not been asked for: the end, and before it the body."""

    def give(self, answer: Ready, more: Pairs) -> None:
        """Start the answer; *more* are its headers that are new."""
        pipeline, record = self.pipeline, self.record
        record.status, record.answered, record.content_type = answer.status, answer.answered, answer.content_type
        if answer.edition is not pipeline.edition:
            answer.heads, answer.edition = {}, pipeline.edition
        heads = answer.heads
        origin = record.environ.get("HTTP_ORIGIN")
        self.headers = headers = [*(heads.get(origin) or self._head(answer, heads, origin))]
        headers.append(("X-Request-ID", record.request_id))
        headers += more
        for add in pipeline.varying:
            try:
                add(record, headers)
            except Exception:
                logger.exception("headers of %s failed", add)
        body = answer.body
        record.bytes_sent = len(body)
        record.alike = answer.alike
        answer.given()
        self.start_response(answer.line, headers)
        self.rest = [None, body] if body else []

    def _head(self, answer: Ready, heads: dict[str | None, Pairs], origin: str | None) -> Pairs:
        """Return the answer's headers with what steady rooms add, kept for its likes unless one forbids it."""
        record, headers = self.record, list(answer.headers)
        for add in self.pipeline.steady:
            try:
                add(record, headers)
            except Exception:
                logger.exception("headers of %s failed", add)
                record.singular = True
        head = tuple(headers)
        if not record.singular:
            if len(heads) >= _MOST_HEADS:
                heads.clear()
            heads[origin] = head
        return head

    def __iter__(self) -> Iterator[bytes]:
        """Give the body, then the end; no code of ours in between."""
        if self.rest is None:  # it crashed on its way out, and this is the error's page
            return Exchange.__iter__(self)
        return iter(self.rest.pop, None) if self.rest else iter(())

    def close(self) -> None:
        """End the record; who did not ask for the end has left before it."""
        rest, record = self.rest, self.record
        if rest is None:
            Exchange.close(self)
        elif record.environ.pop(RECORD_KEY, None) is not None:
            if rest:
                record.outcome = "aborted"
                record.bytes_sent = record.bytes_sent if len(rest) == 1 else 0
            self.end()


class Early:
    """Asks one room for an answer, and the guards whether it may be given.

    A guard is asked here only if it says that it needs nothing of Flask for this request; else the request goes
    the long way. So does one that a guard refuses: its refusal waits in `record.refusal` for where the user's own
    error handlers are.
    """

    def __init__(self, find: Finder, steps: Iterable[Step]) -> None:
        self._find = find
        found = sorted((step for step in steps if Stage.HTTPS <= step.stage <= Stage.CACHE), key=lambda s: s.stage)
        self._plain = _guards(found)
        self._secure = _guards(step for step in found if step.stage != Stage.HTTPS)

    def ask(self, record: RequestRecord) -> tuple[Ready, Pairs] | None:
        """Return the answer and its headers that are new, None for a request that Flask must see."""
        guards = self._secure if record.scheme == "https" else self._plain
        answer = None if guards is None else self._find(record)
        if answer is None or guards is None:
            return None
        for _, is_lean in guards:
            if not is_lean(record):
                return None
        for ask, _ in guards:
            refusal = ask(record)
            if refusal is not None:
                record.refusal = refusal
                return None
        return answer


def early_of(contributions: Mapping[str, Contribution[Any]], steps: Iterable[Step]) -> Early | None:
    """Return what asks the room that has early answers, None if there is no such room."""
    find = next((c.early for c in contributions.values() if c.early), None)
    return None if find is None else Early(find, steps)


def _guards(steps: Iterable[Step]) -> tuple[Guard, ...] | None:
    """Return the guards, None when one of them always needs Flask."""
    guards: list[Guard] = []
    for step in steps:
        if step.lean is None:
            return None
        guards.append((step.ask, step.lean))
    return tuple(guards)
