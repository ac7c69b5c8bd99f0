"""What a check is taken for, from one answer to the next: pure, without threads, clocks or Flask.

One lost packet is no outage and one lucky answer no recovery: so many failures in a row are down, so many
successes up again. The very first answer counts at once, since there is nothing to hold on to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from flask_prod.core.component import Finding

OK, WARN, FAIL, UNKNOWN = "ok", "warn", "fail", "unknown"


@dataclass(frozen=True, slots=True)
class Rule:
    """How many failures in a row are down, and how many successes up."""

    failures: int = 3
    successes: int = 2


AT_ONCE = Rule(1, 1)
"""What holds where a check runs because somebody looks: that answer is the news."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: the seconds it took, and when (`at` monotonic, `checked` wall clock).

    A `sure` failure stands for several: a circuit breaker has opened.
    """

    finding: Finding
    latency: float
    at: float
    checked: float
    sure: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What a check is taken for (`finding`) and since when; `failures` in a row, and the `error` of the latest."""

    finding: Finding
    latency: float
    at: float
    checked: float
    since: float
    failures: int = 0
    successes: int = 0
    error: str = ""

    @property
    def steady(self) -> bool:
        """False while failures or successes are being counted: the next answer may change the status."""
        return not (self.finding.status == FAIL and self.successes) and not (
            self.finding.status != FAIL and self.failures
        )


def follow(before: Result | None, seen: Seen, rule: Rule) -> Result:
    """Return what the check is taken for after one more answer."""
    failed = seen.finding.status == FAIL
    earlier = before.failures if before is not None else 0
    failures = (max(earlier + 1, rule.failures) if seen.sure else earlier + 1) if failed else 0
    successes = 0 if failed or before is None else before.successes + 1
    error = seen.finding.detail if failed else ""
    fresh = Result(
        seen.finding, seen.latency, seen.at, seen.checked, seen.checked, failures, successes, error
    )  # fmt: skip
    if before is None:
        return fresh
    if _holds(before.finding.status, failed, failures < rule.failures, successes < rule.successes):
        fresh = replace(fresh, finding=before.finding, error=error or before.error)
    return replace(fresh, since=before.since) if fresh.finding.status == before.finding.status else fresh


def _holds(status: str, failed: bool, few_failures: bool, few_successes: bool) -> bool:
    """Tell whether the earlier status holds on against this answer."""
    if status == FAIL:
        return not failed and few_successes
    return failed and few_failures


def unknown(result: Result, now: float) -> Result:
    """Return what stands for a result that is too old to be believed."""
    words = f"last asked {now - result.at:.0f} s ago"
    return replace(result, finding=Finding(UNKNOWN, words, result.finding.data), error=words)
