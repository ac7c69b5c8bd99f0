"""How the processes run: switches of development, gunicorn, workers."""

from __future__ import annotations

import os
from importlib.util import find_spec

from flask_prod.review.rule import ERROR, INFO, WARNING, Evidence, Evidences, rule
from flask_prod.review.subject import Subject


@rule(
    "P601", ERROR, "Debug mode is on",
    remedy="Take DEBUG and FLASK_DEBUG away.",
)  # fmt: skip
def debug(subject: Subject) -> Evidences:
    """Error pages show code and variables, and with Flask's own server anybody runs Python on the host."""
    if subject.app is not None and subject.app.debug:
        yield Evidence("app.debug is on (DEBUG of app.config, FLASK_DEBUG, or flask --debug)", "DEBUG")


@rule(
    "P602", ERROR, "Testing mode is on",
    remedy="Take TESTING away from everything but the tests.",
)  # fmt: skip
def testing(subject: Subject) -> Evidences:
    """Errors then pass through the handlers that hide them, and extensions leave out mails and sign-in."""
    for key in ("TESTING", "LOGIN_DISABLED"):
        if subject.config(key):
            yield Evidence(f"{key} is on", key)


@rule(
    "P603", WARNING, "Errors are thrown through the server",
    remedy="Leave PROPAGATE_EXCEPTIONS and TRAP_HTTP_EXCEPTIONS out.",
)  # fmt: skip
def propagates(subject: Subject) -> Evidences:
    """Visitors get the server's bare 500, without headers or a request id."""
    for key in ("PROPAGATE_EXCEPTIONS", "TRAP_HTTP_EXCEPTIONS"):
        if subject.config(key):
            yield Evidence(f"{key} is on", key)


@rule(
    "P604", WARNING, "Templates are looked up and compiled anew",
    remedy="Leave TEMPLATES_AUTO_RELOAD and EXPLAIN_TEMPLATE_LOADING out.",
)  # fmt: skip
def templates(subject: Subject) -> Evidences:
    """Each page then asks the disk about every template that it is made of."""
    for key in ("TEMPLATES_AUTO_RELOAD", "EXPLAIN_TEMPLATE_LOADING"):
        if subject.config(key):
            yield Evidence(f"{key} is on", key)


@rule(
    "P605", WARNING, "One worker serves alone",
    remedy="Leave WEB_CONCURRENCY out for one worker per CPU, or set it to 2 or more.",
)  # fmt: skip
def alone(subject: Subject) -> Evidences:
    """While it restarts, or is killed for its memory, nobody is answered."""
    if subject.state is not None and subject.serving.workers == 1:
        yield Evidence("gunicorn will run 1 worker", "WEB_CONCURRENCY")


@rule(
    "P606", WARNING, "Each worker serves one request at a time",
    remedy="WEB_WORKER_CLASS=gthread with WEB_THREADS=4, or gevent.",
)  # fmt: skip
def sync(subject: Subject) -> Evidences:
    """A few slow clients, or one slow service behind it, then hold all of them; idle connections are not kept."""
    if subject.state is not None and subject.serving.kind == "sync":
        yield Evidence("gunicorn will run sync workers", "WEB_WORKER_CLASS")


@rule(
    "P607", ERROR, "The workers' library is not installed",
    remedy="pip install 'flask-prod[gevent]', or WEB_WORKER_CLASS=gthread.",
)  # fmt: skip
def no_gevent(subject: Subject) -> Evidences:
    """The server does not start."""
    kind = subject.serving.kind if subject.state is not None else ""
    if kind in ("gevent", "eventlet") and find_spec(kind) is None:
        yield Evidence(f"gunicorn will run {kind} workers, and {kind} is not installed", "WEB_WORKER_CLASS")


@rule(
    "P608", WARNING, "A stuck worker is never replaced",
    remedy="WEB_TIMEOUT=30s, and no timeout = 0 in gunicorn.conf.py.",
)  # fmt: skip
def no_timeout(subject: Subject) -> Evidences:
    """A timeout of 0 switches gunicorn's watch off."""
    if subject.state is not None and subject.serving.timeout == 0:
        yield Evidence("gunicorn's timeout is 0", "WEB_TIMEOUT")


@rule(
    "P609", ERROR, "gunicorn watches the code and restarts",
    remedy="Take reload (and the option --reload) away; SIGHUP takes up new code without a lost request.",
)  # fmt: skip
def reloads(subject: Subject) -> Evidences:
    """A file written half by a deploy is then served."""
    if subject.gunicorn.values.get("reload"):
        yield Evidence("reload is on for gunicorn", "", subject.gunicorn.path)


@rule(
    "P610", WARNING, "gunicorn runs without the kit's hooks",
    remedy="At the end of gunicorn.conf.py: from flask_prod.server.gunicorn import compose; "
    "globals().update(compose(globals())).",
)  # fmt: skip
def no_hooks(subject: Subject) -> Evidences:
    """Without them a stop loses requests, connections are inherited over forks, and metrics count one worker."""
    if subject.gunicorn.path is not None and not subject.gunicorn.ours:
        what = f" ({subject.gunicorn.problem})" if subject.gunicorn.problem else ""
        yield Evidence(f"{subject.gunicorn.path.name} does not name flask_prod{what}", "", subject.gunicorn.path)


@rule(
    "P611", WARNING, "gunicorn believes every proxy as well",
    remedy="Take forwarded_allow_ips away: TRUSTED_PROXIES is the one place that says it.",
)  # fmt: skip
def two_opinions(subject: Subject) -> Evidences:
    """Any client then says by a header that it came by https, and redirects and links follow it."""
    allowed = subject.gunicorn.values.get("forwarded_allow_ips") or subject.environ.get("FORWARDED_ALLOW_IPS")
    if allowed == "*":
        yield Evidence("forwarded_allow_ips is *", "", subject.gunicorn.path)


@rule(
    "P612", WARNING, "Request lines and headers may be of any size",
    remedy="Leave limit_request_line, limit_request_fields and limit_request_field_size as gunicorn sets them.",
)  # fmt: skip
def request_lines(subject: Subject) -> Evidences:
    """0 switches the limit off, and one client fills memory with a header."""
    for name in ("limit_request_line", "limit_request_field_size", "limit_request_fields"):
        if subject.gunicorn.values.get(name) == 0:
            yield Evidence(f"{name} is 0", "", subject.gunicorn.path)


@rule(
    "P613", ERROR, "A tool of development is part of the application",
    remedy="Install and register it in development only.",
)  # fmt: skip
def tools(subject: Subject) -> Evidences:
    """Such tools show settings and variables to whoever opens a page, and some run code."""
    blueprints = subject.app.blueprints if subject.app is not None else {}
    known = {"debugtoolbar": "Flask-DebugToolbar", "rq_dashboard": "rq-dashboard, which asks nobody who he is"}
    for name, what in known.items():
        if name in blueprints:
            yield Evidence(f"the blueprint {name} is registered: {what}")


@rule(
    "P614", INFO, "The service runs as root",
    remedy="A user of its own: USER 1000 in the Dockerfile, runAsNonRoot: true, User= of systemd.", online=True,
)  # fmt: skip
def root(_subject: Subject) -> Evidences:
    """One hole in the application is then one in the host's kernel interface and in every mounted file."""
    if os.geteuid() == 0:
        yield Evidence("the user's id is 0")


RULES = (
    debug, testing, propagates, templates, alone, sync, no_gevent, no_timeout, reloads, no_hooks, two_opinions,
    request_lines, tools, root,
)  # fmt: skip
