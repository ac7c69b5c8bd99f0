"""A small service to deploy in tests, and whatever can be wrong with it: a file in MEDDLE says what."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, session

from flask_prod import ProdKit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def create_app(**config: Any) -> Flask:
    """Build the service: a page, a page with a cookie, and a job."""
    app = Flask("served")
    app.config.update(config)
    prod = ProdKit(app, without=("usage", "alerts"))

    @app.get("/")
    def index() -> str:
        return "well"

    @app.get("/greeting")
    def greeting() -> str:
        session["seen"] = True
        return "hello"

    @app.get("/orders/<int:number>")
    def order(number: int) -> str:
        raise RuntimeError("nobody asks for this without a number")

    @prod.job(queue="mails")
    def send() -> None:
        """Send nothing."""

    if os.environ.get("MEDDLE"):
        app.wsgi_app = Meddler(app.wsgi_app, Path(os.environ["MEDDLE"]))  # type: ignore[method-assign]
    return app


class Meddler:
    """Does to answers what a broken release or proxy would."""

    def __init__(self, inner: Callable[..., Iterable[bytes]], folder: Path) -> None:
        self._inner = inner
        self._folder = folder

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, with what is wrong today."""
        wrong = {path.name for path in self._folder.iterdir()}
        path = environ["PATH_INFO"]
        if "slow" in wrong and path == "/":
            time.sleep(0.3)
        if "broken" in wrong and path == "/greeting":
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"broken"]
        if "open" in wrong and path == "/metrics":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"flask_prod_build_info 1\n"]

        def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
            if "bare" in wrong:
                headers = [(name, value) for name, value in headers if name != "X-Frame-Options"]
            if "shared" in wrong:
                headers = [*headers, ("Access-Control-Allow-Origin", environ.get("HTTP_ORIGIN", "*"))]
            if "loose" in wrong:
                headers = [(n, v.replace("; HttpOnly", "").replace("; SameSite=Lax", "")) for n, v in headers]
            return start_response(status, headers, error)

        return self._inner(environ, start)
