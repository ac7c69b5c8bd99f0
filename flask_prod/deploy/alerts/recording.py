"""Recording rules of requests: rates, shares and quantiles that alerts and dashboards ask for again and again."""

from __future__ import annotations

from collections.abc import Iterator

from .rule import Recording, Scope

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
"""What the burn rates of the objective look at (Site Reliability Workbook, chapter 5)."""

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def recordings(scope: Scope) -> Iterator[Recording]:
    """Yield them."""
    yield from _requests(scope)
    for window in WINDOWS:
        yield _error_ratio(scope, window)
    yield from _latency(scope)


def _requests(scope: Scope) -> Iterator[Recording]:
    total = f"flask_http_request_total{{{scope.web}}}"
    yield Recording(record="job:flask_http_requests:rate5m", expr=f"sum by (job) (rate({total}[5m]))")
    yield Recording(
        record="job_status:flask_http_requests:rate5m", expr=f"sum by (job, status) (rate({total}[5m]))"
    )
    yield Recording(
        record="job_url_rule:flask_http_requests:rate5m",
        expr=f"sum by (job, url_rule) (rate(flask_http_request_duration_seconds_count{{{scope.web}}}[5m]))",
    )
    known = f'flask_http_request_duration_seconds_count{{{scope.web}, url_rule!="unmatched"}}'
    good = f'flask_http_request_duration_seconds_count{{{scope.web}, url_rule!="unmatched", status=~"[123].."}}'
    yield Recording(
        record="job:flask_http_request_success:ratio_rate5m",
        expr=f"sum by (job) (rate({good}[5m]))\n/\nsum by (job) (rate({known}[5m]))",
    )


def _error_ratio(scope: Scope, window: str) -> Recording:
    """Return the share of failed requests; 0 rather than nothing where none has failed yet."""
    total = f"sum by (job) (rate(flask_http_request_total{{{scope.web}}}[{window}]))"
    failed = f'sum by (job) (rate(flask_http_request_total{{{scope.web}, status=~"5.."}}[{window}]))'
    return Recording(
        record=f"job:flask_http_request_errors:ratio_rate{window}",
        expr=f"({failed} or 0 * {total})\n/\n{total}",
    )


def _latency(scope: Scope) -> Iterator[Recording]:
    bucket = f"rate(flask_http_request_duration_seconds_bucket{{{scope.web}}}[5m])"
    for name, quantile in QUANTILES.items():
        yield Recording(
            record=f"job:flask_http_request_duration_seconds:{name}_5m",
            expr=f"histogram_quantile({quantile}, sum by (job, le) ({bucket}))",
        )
        yield Recording(
            record=f"job_url_rule:flask_http_request_duration_seconds:{name}_5m",
            expr=f"histogram_quantile({quantile}, sum by (job, url_rule, le) ({bucket}))",
        )
