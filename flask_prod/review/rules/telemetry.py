"""Whether somebody learns of it when something goes wrong: logs, errors, metrics, traces."""

from __future__ import annotations

from flask_prod.review.rule import INFO, WARNING, Evidence, Evidences, rule
from flask_prod.review.subject import Subject


@rule(
    "P701", WARNING, "Everything is logged",
    remedy="LOG_LEVEL=INFO; `flask prod log-level debug --for 10m` where you look for something.",
)  # fmt: skip
def debug_log(subject: Subject) -> Evidences:
    """Libraries write bodies and headers at DEBUG, and the lines that matter drown."""
    if str(subject.get("LOG_LEVEL")).upper() in ("DEBUG", "NOTSET", "0", "10"):
        yield Evidence(subject.said("LOG_LEVEL"), "LOG_LEVEL")


@rule(
    "P702", WARNING, "Log lines are for people",
    remedy="LOG_FORMAT=json.",
)  # fmt: skip
def console(subject: Subject) -> Evidences:
    """No collector finds request ids, statuses or durations in them, and a stack is many lines."""
    if subject.get("LOG_FORMAT") == "console":
        yield Evidence(subject.said("LOG_FORMAT"), "LOG_FORMAT")


@rule(
    "P703", WARNING, "Nobody is told of errors",
    remedy="SENTRY_DSN (Sentry, GlitchTip ...), or ALERTS_CHANNELS=mailto://... for counts of them.",
)  # fmt: skip
def no_reports(subject: Subject) -> Evidences:
    """Errors then stand in the log alone, until a customer calls."""
    if subject.has("SENTRY_DSN") and not subject.get("SENTRY_DSN") and not subject.get("ALERTS_CHANNELS"):
        yield Evidence("SENTRY_DSN and ALERTS_CHANNELS are empty", "SENTRY_DSN")


@rule(
    "P704", WARNING, "Traces are on, and go nowhere",
    remedy="OTLP_ENDPOINT=http://collector:4318, or TRACING_ENABLED=false.",
)  # fmt: skip
def no_collector(subject: Subject) -> Evidences:
    """Each request pays for spans that nobody gets."""
    ends = [subject.text(key) for key in ("OTLP_ENDPOINT", "JAEGER_ENDPOINT")]
    named = any(name.startswith("OTEL_EXPORTER_OTLP") for name in subject.environ)
    if (
        subject.get("TRACING_ENABLED")
        and subject.get("TRACING_EXPORTER") != "console"
        and not any(ends)
        and not named
    ):
        yield Evidence("TRACING_ENABLED is true, OTLP_ENDPOINT and JAEGER_ENDPOINT are empty", "OTLP_ENDPOINT")


@rule(
    "P705", WARNING, "Spans are written into the log",
    remedy="TRACING_EXPORTER=otlp.",
)  # fmt: skip
def console_spans(subject: Subject) -> Evidences:
    """The console exporter is for looking at spans while you write code."""
    traced = subject.get("TRACING_ENABLED") or subject.get("OTLP_ENDPOINT") or subject.get("JAEGER_ENDPOINT")
    if subject.get("TRACING_EXPORTER") == "console" and traced:
        yield Evidence(subject.said("TRACING_EXPORTER"), "TRACING_EXPORTER")


@rule(
    "P706", INFO, "Every request is traced",
    remedy="TRACING_SAMPLING_RATE=0.1, SENTRY_TRACES_SAMPLE_RATE=0.05.",
)  # fmt: skip
def all_traced(subject: Subject) -> Evidences:
    """Keeping all spans costs time in each request, and money at whoever stores them."""
    traced = subject.get("TRACING_ENABLED") or subject.get("OTLP_ENDPOINT") or subject.get("JAEGER_ENDPOINT")
    if traced and subject.get("TRACING_ENABLED") is not False and subject.get("TRACING_SAMPLING_RATE") == 1:
        yield Evidence(subject.said("TRACING_SAMPLING_RATE"), "TRACING_SAMPLING_RATE")
    if subject.get("SENTRY_DSN") and subject.get("SENTRY_TRACES_SAMPLE_RATE") == 1:
        yield Evidence(subject.said("SENTRY_TRACES_SAMPLE_RATE"), "SENTRY_TRACES_SAMPLE_RATE")


@rule(
    "P707", WARNING, "Strangers decide what is traced",
    remedy="TRACING_TRUST_PARENT=private or ids.",
)  # fmt: skip
def trusts_parent(subject: Subject) -> Evidences:
    """One header in each request, and all of an attacker's requests are recorded at your cost."""
    if subject.get("TRACING_TRUST_PARENT") == "always":
        yield Evidence(subject.said("TRACING_TRUST_PARENT"), "TRACING_TRUST_PARENT")


@rule(
    "P708", WARNING, "There are no metrics",
    remedy="METRICS_ENABLED=true; METRICS_TOKEN says who may scrape.",
)  # fmt: skip
def no_metrics(subject: Subject) -> Evidences:
    """Nobody sees latency, errors or a full pool until it is too late."""
    if subject.get("METRICS_ENABLED") is False:
        yield Evidence(subject.said("METRICS_ENABLED"), "METRICS_ENABLED")


@rule(
    "P709", WARNING, "SQL is logged with its values",
    remedy="Take SQLALCHEMY_ECHO and SQLALCHEMY_RECORD_QUERIES away; LOG_SLOW_QUERY tells of slow ones.",
)  # fmt: skip
def echo(subject: Subject) -> Evidences:
    """Passwords and addresses of customers are then in the log, or in memory for ever."""
    for key in ("SQLALCHEMY_ECHO", "SQLALCHEMY_RECORD_QUERIES"):
        if subject.config(key):
            yield Evidence(f"{key} is on", key)


@rule(
    "P710", WARNING, "The Sentry SDK writes what it does",
    remedy="Take SENTRY_DEBUG away.",
)  # fmt: skip
def sentry_debug(subject: Subject) -> Evidences:
    """It is for finding out why reports do not arrive, and writes to the error output all the time."""
    value = subject.config("SENTRY_DEBUG", subject.environ.get("SENTRY_DEBUG"))
    if subject.has("SENTRY_DSN") and str(value).lower() in ("1", "true", "yes", "on"):
        yield Evidence("SENTRY_DEBUG is on", "SENTRY_DEBUG")


@rule(
    "P711", INFO, "Every program of the private network may read the metrics",
    remedy="flask prod secret generate METRICS_TOKEN; give it to Prometheus: authorization.credentials_file.",
)  # fmt: skip
def open_metrics(subject: Subject) -> Evidences:
    """They tell routes, traffic and errors; a proxy in front that passes connections on, without X-Forwarded-For,
    makes strangers direct peers."""
    if subject.get("METRICS_ENABLED") and not subject.get("METRICS_TOKEN"):
        yield Evidence("METRICS_TOKEN is empty", "METRICS_TOKEN")


RULES = (
    debug_log, console, no_reports, no_collector, console_spans, all_traced, trusts_parent, no_metrics, echo,
    sentry_debug, open_metrics,
)  # fmt: skip
