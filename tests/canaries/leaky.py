"""An application that handles secrets as carelessly as real code does: in texts, variables, logs and addresses."""

from __future__ import annotations

import json
import logging
import urllib.request
from typing import Any

from flask import Flask, abort, request
from sqlalchemy import text

from flask_prod import ProdKit

prod = ProdKit()
logger = logging.getLogger("leaky")


@prod.job(retry=0)
def charge(password: str, card: str) -> None:
    """Fail with both arguments in the exception's text."""
    logger.warning("charging %s", card, extra={"password": password})
    raise RuntimeError(f"cannot charge {card} for {password}")


def create_app() -> Flask:
    """Build the application."""
    app = Flask("leaky")
    prod.init_app(app)
    for view in (
        form,
        body,
        query,
        header,
        parsed,
        cookie,
        sql,
        outgoing,
        chained,
        said,
        dispatched,
        streamed,
        cached,
    ):
        app.add_url_rule(f"/{view.__name__}", view_func=view, methods=["GET", "POST"])
    app.add_url_rule("/reset/<token>", view_func=reset, methods=["GET", "POST"])
    app.before_request(failing("before"))
    app.after_request(failing("after"))
    app.teardown_request(failing("teardown"))
    return app


def failing(where: str) -> Any:
    """Return a hook that says where it is, and fails when told to; no variable of it holds what is secret."""

    def hook(passed: Any = None) -> Any:
        if request.args.get("fail") == where:
            logger.warning("failing at %s (%s)", request.path, request.url)
            raise RuntimeError(f"{where} failed")
        return passed

    return hook


def form() -> str:
    """Fail with a form's password in the text."""
    password = request.form["password"]
    raise ValueError(f"{password} is no good password for {request.form.to_dict()}")


def body() -> str:
    """Fail deep in a call, with the parsed body in a variable of every frame."""
    return check(request.get_json())


def check(order: dict[str, Any]) -> str:
    """Fail with a card's number, which no name gives away, in the text."""
    number = order["payment"]["number"]
    logger.error("order refused: %s", json.dumps(order))
    raise RuntimeError(f"card {number} refused, api key {order['payment']['api_key']}")


def query() -> str:
    """Fail on a token in the address."""
    raise LookupError(f"no such session: {request.args['access_token']} ({request.url})")


def parsed() -> str:
    """Fail on what was parsed, which no variable of ours holds."""
    if request.authorization:
        raise PermissionError(f"wrong: {request.authorization.password}")
    raise ValueError(f"wrong: {request.form.get('password') or request.get_json()['user']['password']}")


def header() -> str:
    """Fail with credentials that came in headers."""
    raise PermissionError(f"{request.headers['Authorization']} / {request.headers['X-Api-Key']}")


def cookie() -> str:
    """Fail with a cookie's value in the text, then answer as the handler of a 400."""
    logger.warning("odd cookie: %r", request.cookies["session"])
    abort(500, description=f"session {request.cookies['session']}")


def sql() -> str:
    """Fail in the database, whose driver puts statement and parameters into the text."""
    prod.db.session.execute(text("insert into nowhere values (:password)"), {"password": request.form["password"]})
    return "stored"


def outgoing() -> str:
    """Fail to reach another service at an address with credentials."""
    secret = request.headers["X-Api-Key"]
    url = f"http://127.0.0.1:9/?api_key={secret}"
    try:
        urllib.request.urlopen(url, timeout=1)  # a port that nobody listens on
    except OSError as error:
        raise ConnectionError(f"cannot reach {url}") from error
    return "reached"


def chained() -> str:
    """Fail while handling a failure: the first one's text and variables go out as well."""
    token = request.args["access_token"]
    try:
        raise KeyError(token)
    except KeyError as error:
        prod.capture_error(error, refresh_token=token)
        raise RuntimeError("sign-in failed") from error


def said() -> str:
    """Say it by every way of saying something."""
    password, card = request.form["password"], request.form["card"]
    logger.info("password=%s", password)
    logger.warning("paid by %s", card, extra={"card_number": card, "nested": {"secret": password}})
    prod.log.warning("authorization: Bearer %s", password)
    prod.sentry.add_breadcrumb(message=f"password={password}", data={"password": password})
    prod.sentry.capture_message("something odd", "warning", password=password, note=f"card {card}")
    return "said"


def dispatched() -> str:
    """Hand secrets to a job."""
    charge.dispatch(password=request.form["password"], card=request.form["card"])
    return "dispatched"


def streamed() -> Any:
    """Crash in the middle of a stream."""
    password = request.form["password"]

    def chunks() -> Any:
        yield "first "
        raise RuntimeError(f"stream of {password} broke")

    return app_response(chunks())


def app_response(chunks: Any) -> Any:
    """Return a stream."""
    from flask import Response

    return Response(chunks, mimetype="text/plain")


@prod.cache.cached(ttl="5m")
def cached() -> str:
    """Give a page that is somebody's own."""
    return f"hello {request.headers.get('Authorization', 'stranger')}"


def reset(token: str) -> str:
    """Fail on a token in the path."""
    raise LookupError(f"token {token} has expired")
