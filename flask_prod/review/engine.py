"""Ask every rule, set aside what is silenced, and put the worst first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .rule import INFO, SEVERITIES, WARNING, Evidence, Finding, Rule

if TYPE_CHECKING:
    from .subject import Subject

UNREASONED, FAILED = "P003", "P004"


@dataclass(frozen=True)
class Report:
    """What was found; `unneeded` are silences of which nothing was to be silenced."""

    findings: tuple[Finding, ...]
    silenced: tuple[Finding, ...] = ()
    unneeded: tuple[str, ...] = ()
    asked: int = 0

    def fails(self, least: str) -> bool:
        """Tell whether any finding is as bad as *least*, or worse."""
        bad = SEVERITIES[: SEVERITIES.index(least) + 1]
        return any(one.severity in bad for one in self.findings)


def review(
    subject: Subject,
    rules: Sequence[Rule],
    *,
    more: Callable[[Subject], Iterable[Finding]] = lambda _subject: (),
    online: bool = False,
    only: Collection[str] = (),
    silences: Mapping[str, str] | None = None,
) -> Report:
    """Ask *rules*, those whose ids begin with one of *only* if it names any; *more* adds findings of elsewhere."""
    prefixes = tuple(only)
    asked = [one for one in rules if (online or not one.online) and _wanted(one.id, prefixes)]
    found = [finding for one in asked for finding in ask(one, subject)]
    found += [one for one in more(subject) if _wanted(one.id, prefixes)]
    known = {one.id for one in rules if one not in asked}
    return sorted_out(found, silences or {}, len(asked), known)


def sorted_out(
    found: Iterable[Finding], silences: Mapping[str, str], asked: int, unasked: Collection[str] = ()
) -> Report:
    """Set aside what is silenced with a reason, and put the worst first; *unasked* silences may be needed yet."""
    found = [*found, *(_unreasoned(id) for id, reason in silences.items() if not reason.strip())]
    reasons = {id: reason for id, reason in silences.items() if reason.strip()}
    unneeded = set(reasons) - {one.id for one in found} - set(unasked)
    silenced = tuple(replace(one, reason=reasons[one.id]) for one in found if one.id in reasons)
    rest = [one for one in found if one.id not in reasons]
    ordered = sorted(rest, key=lambda one: (SEVERITIES.index(one.severity), one.id))
    return Report(tuple(ordered), silenced, tuple(sorted(unneeded)), asked)


def ask(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Yield what one rule finds; one that fails is a finding itself, and stops no other."""
    try:
        for one in rule.judge(subject):
            evidence = one if isinstance(one, Evidence) else Evidence(one)
            yield Finding(
                rule.id, rule.severity, rule.title, subject.hidden(evidence.text), rule.remedy,
                evidence.key, evidence.path, evidence.fix,
            )  # fmt: skip
    except Exception as error:
        text = f"{rule.id} ended with {type(error).__name__}: {error}"
        yield Finding(
            FAILED, INFO, "A rule could not be judged", subject.hidden(text),
            f"Look at what {rule.id} is about yourself, and report this.",
        )  # fmt: skip


def _unreasoned(id: str) -> Finding:
    return Finding(
        UNREASONED, WARNING, "A silence has no reason", f"{id} is silenced, and nobody says why",
        f'Say why: {id}="the reason" in CHECK_SILENCE or --silence.', "CHECK_SILENCE",
    )  # fmt: skip


def _wanted(id: str, prefixes: tuple[str, ...]) -> bool:
    return not prefixes or id.startswith(prefixes)
