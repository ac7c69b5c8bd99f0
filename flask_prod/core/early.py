"""Answers that need nothing of Flask: found at WSGI level, given once the guards behind routing let them pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .component import Ask, Contribution, Stage, Step
from .record import RequestRecord

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

Guard: TypeAlias = tuple[Ask, Callable[[RequestRecord], bool]]


class Early:
    """Asks one room for an answer, and the guards whether it may be given.

    A guard is asked here only if it says that it needs nothing of Flask for this request; else the request goes
    the long way. So does one that a guard refuses: its refusal waits in `record.refusal` for where the user's own
    error handlers are.
    """

    def __init__(self, find: Callable[[RequestRecord], WSGIApplication | None], steps: Iterable[Step]) -> None:
        self._find = find
        found = sorted((step for step in steps if Stage.HTTPS <= step.stage <= Stage.CACHE), key=lambda s: s.stage)
        self._plain = _guards(found)
        self._secure = _guards(step for step in found if step.stage != Stage.HTTPS)

    def ask(self, record: RequestRecord) -> WSGIApplication | None:
        """Return the answer, None for a request that Flask must see."""
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
