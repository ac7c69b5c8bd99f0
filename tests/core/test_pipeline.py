from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, abort, request
from werkzeug.exceptions import BadRequest, HTTPException, TooManyRequests
from werkzeug.test import EnvironBuilder, run_wsgi_app
from werkzeug.wrappers import Response

from flask_prod.core.component import HeaderList, Stage, Step
from flask_prod.core.record import RequestRecord, current_record

from .rooms import app_with, room


class Watch:
    """A room that remembers every record and marks every answer."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def headers(self, record: RequestRecord, headers: HeaderList) -> None:
        headers.append(("X-Seen", record.path))

    @property
    def last(self) -> RequestRecord:
        return self.records[-1]


@pytest.fixture
def watch() -> Watch:
    return Watch()


def app_watched(watch: Watch, *steps: Step, **config: Any) -> Flask:
    app = app_with(
        room("watch", headers=watch.headers, observe=watch.records.append, operational=("/live", "/probe/")),
        room("guards", steps=steps), **config,
    )  # fmt: skip
    views: dict[str, Any] = {
        "/": lambda: "hello",
        "/live": lambda: "live",
        "/probe/one": lambda: "one",
        "/items/<int:item>": lambda item: {"item": item},
        "/crash": crash,
        "/abort": lambda: abort(503),
        "/stream": stream,
        "/broken-stream": broken_stream,
    }
    for rule, view in views.items():
        app.add_url_rule(rule, endpoint=rule, view_func=view)
    return app


def crash() -> str:
    raise ZeroDivisionError("kaboom")


def stream() -> Iterator[str]:
    yield "abc"
    yield "defg"


def broken_stream() -> Iterator[str]:
    yield "abc"
    raise ZeroDivisionError("mid-stream")


def refuse(error: HTTPException) -> Any:
    return lambda record: error if record.path != "/spared" else None


def test_record_of_an_ordinary_request(watch: Watch) -> None:
    """The record has route, status, bytes and outcome when the body is closed."""
    answer = app_watched(watch).test_client().get("/items/7")
    record = watch.last

    assert (record.method, record.path, record.route, record.endpoint) == (
        "GET",
        "/items/7",
        "/items/<int:item>",
        "/items/<int:item>",
    )
    assert (record.status, record.bytes_sent, record.outcome) == (200, len(answer.data), "ok")
    assert record.duration > 0
    assert answer.headers["X-Request-ID"] == record.request_id
    assert answer.headers["X-Seen"] == "/items/7"


def test_request_ids_differ(watch: Watch) -> None:
    """No two requests have the same id, and each is 32 hex digits."""
    client = app_watched(watch).test_client()
    for _ in range(50):
        client.get("/")

    ids = {record.request_id for record in watch.records}
    assert len(ids) == 50
    assert all(len(one) == 32 and int(one, 16) for one in ids)


@pytest.mark.parametrize("stage", list(Stage))
def test_step_answers_at_every_stage(watch: Watch, stage: Stage) -> None:
    """A refusal at any stage is the answer, with the headers of every room, and is observed."""
    app = app_watched(watch, Step(stage, refuse(TooManyRequests())))

    answer = app.test_client().options("/")

    assert answer.status_code == watch.last.status == 429
    assert answer.headers["X-Seen"] == "/"


def test_steps_run_in_the_order_of_their_stages(watch: Watch) -> None:
    """Stages decide, whatever order the rooms contribute their steps in."""
    seen: list[Stage] = []

    def step(stage: Stage) -> Step:
        return Step(stage, lambda record: seen.append(stage))

    app_watched(watch, *(step(stage) for stage in reversed(Stage))).test_client().options("/")

    assert seen == list(Stage)


@pytest.mark.parametrize(
    ("stage", "method", "scheme", "asked"),
    [
        (Stage.PREFLIGHT, "GET", "http", False),
        (Stage.PREFLIGHT, "OPTIONS", "https", True),
        (Stage.HTTPS, "GET", "http", True),
        (Stage.HTTPS, "GET", "https", False),
        (Stage.LIMIT, "GET", "https", True),
    ],
)
def test_stages_that_concern_some_requests(
    watch: Watch, stage: Stage, method: str, scheme: str, asked: bool
) -> None:
    """Preflights come by OPTIONS, and what comes by HTTPS needs no redirect; no other request pays for that."""
    app = app_watched(watch, Step(stage, refuse(TooManyRequests())))

    answer = app.test_client().open("/", method=method, base_url=f"{scheme}://shop.example")

    assert (answer.status_code == 429) is asked


@pytest.mark.parametrize("stage", list(Stage))
def test_step_of_one_path(watch: Watch, stage: Stage) -> None:
    """A step with a path is asked about it and what begins with it, at every stage, and about nothing else."""
    app = app_watched(watch, Step(stage, refuse(TooManyRequests()), "/items/"))

    answers = [app.test_client().options(path).status_code for path in ("/items/7", "/", "/livex")]

    assert [status == 429 for status in answers] == [True, False, False]


def test_routed_step_comes_before_the_applications_own_hooks(watch: Watch) -> None:
    """A limit refuses before the application's before_request functions do any work."""
    ran: list[str] = []
    app = app_watched(watch, Step(Stage.LIMIT, refuse(TooManyRequests())))
    app.before_request(lambda: ran.append("late"))
    app.before_request_funcs[None].append(lambda: ran.append("later"))

    assert app.test_client().get("/").status_code == 429
    assert ran == []


def test_routed_step_sees_unmatched_paths(watch: Watch) -> None:
    """A scanner's 404s are seen by the limit too."""
    app = app_watched(watch, Step(Stage.LIMIT, refuse(TooManyRequests())))

    assert app.test_client().get("/no/such/page").status_code == 429
    assert watch.last.route is None


def test_refusal_of_a_routed_step_reaches_the_users_handler(watch: Watch) -> None:
    """The user's own error page for 429 is used."""
    app = app_watched(watch, Step(Stage.LIMIT, refuse(TooManyRequests())))
    app.register_error_handler(429, lambda error: ("slow down", 429))

    answer = app.test_client().get("/")

    assert (answer.text, answer.headers["X-Seen"]) == ("slow down", "/")


@pytest.mark.parametrize("path", ["/live", "/probe/one"])
@pytest.mark.parametrize("stage", [Stage.HOST, Stage.PREFLIGHT, Stage.HTTPS, Stage.LIMIT, Stage.CACHE])
def test_operational_endpoints_are_never_refused(watch: Watch, path: str, stage: Stage) -> None:
    """Probes and scrapes pass every guard that comes after they are recognised."""
    answer = app_watched(watch, Step(stage, refuse(BadRequest()))).test_client().get(path)

    assert answer.status_code == 200
    assert watch.last.operational


def test_look_alike_of_an_operational_path_is_guarded(watch: Watch) -> None:
    """Only exact paths and declared subtrees are operational."""
    client = app_watched(watch, Step(Stage.HOST, refuse(BadRequest()))).test_client()

    assert [client.get(path).status_code for path in ("/livex", "/live/", "/probe", "//live")] == [400] * 4


@pytest.mark.parametrize("propagate", [None, True])
def test_crash_is_answered_with_headers(watch: Watch, propagate: bool | None) -> None:
    """A crash is a 500 with the kit's headers, also with PROPAGATE_EXCEPTIONS, and its cause is recorded."""
    app = app_watched(watch, PROPAGATE_EXCEPTIONS=propagate)

    answer = app.test_client().get("/crash")

    assert (answer.status_code, answer.headers["X-Seen"]) == (500, "/crash")
    assert isinstance(watch.last.error, ZeroDivisionError)
    assert watch.last.status == 500


def test_crash_under_test_is_raised(watch: Watch) -> None:
    """With TESTING the exception reaches the test, and the request is still observed."""
    app = app_watched(watch, TESTING=True)

    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/crash")
    assert (watch.last.status, watch.last.outcome) == (500, "crashed")
    assert current_record() is None


def test_catch_all_handler_hides_nothing(watch: Watch) -> None:
    """An exception that the user's handler turns into a 500 is still the record's error."""
    app = app_watched(watch)
    app.register_error_handler(Exception, lambda error: ({"error": "sorry"}, 500))

    assert app.test_client().get("/crash").json == {"error": "sorry"}
    assert isinstance(watch.last.error, ZeroDivisionError)


def test_exception_that_is_an_ordinary_answer(watch: Watch) -> None:
    """An exception that the user's handler turns into a 4xx is no error."""
    app = app_watched(watch)
    app.register_error_handler(ZeroDivisionError, lambda error: ("no such number", 404))

    app.test_client().get("/crash")

    assert watch.last.error is None


def test_abort_503_is_an_error(watch: Watch) -> None:
    """A 5xx that the view asks for is recorded with its exception."""
    app_watched(watch).test_client().get("/abort")

    assert getattr(watch.last.error, "code", None) == 503


def test_raising_teardown_is_answered(watch: Watch) -> None:
    """A teardown function that raises ends in a 500 with headers rather than a dropped connection."""
    app = app_watched(watch)

    @app.teardown_request
    def broken(_error: BaseException | None) -> None:
        raise RuntimeError("teardown")

    started: list[Any] = []

    def start_response(*start: Any) -> Any:
        started.append(start)

    body = app(EnvironBuilder("/").get_environ(), start_response)
    body.close()  # type: ignore[attr-defined]  # every body of the pass has it
    status, headers, exc_info = started[-1]

    assert (status[:3], dict(headers)["X-Seen"], exc_info[0]) == ("500", "/", RuntimeError)
    assert watch.last.status == 500


def test_stream(watch: Watch) -> None:
    """A stream is counted to its last byte."""
    with app_watched(watch).test_client().get("/stream") as answer:
        assert answer.get_data() == b"abcdefg"
    assert (watch.last.bytes_sent, watch.last.outcome) == (7, "ok")


def test_stream_that_breaks(watch: Watch) -> None:
    """A stream that crashes after its headers is recorded as crashed, with the cause."""
    with app_watched(watch).test_client().get("/broken-stream") as answer, pytest.raises(ZeroDivisionError):
        answer.get_data()

    assert (watch.last.status, watch.last.bytes_sent, watch.last.outcome) == (200, 3, "crashed")
    assert isinstance(watch.last.error, ZeroDivisionError)


def test_client_that_leaves(watch: Watch) -> None:
    """A body closed before its end is recorded as aborted."""
    app = app_watched(watch)
    body, _status, _headers = run_wsgi_app(app, app.test_request_context("/stream").request.environ)
    next(iter(body))
    body.close()  # type: ignore[attr-defined]

    assert watch.last.outcome == "aborted"


def test_head_request_is_no_abort(watch: Watch) -> None:
    """An answer without a body is complete."""
    app_watched(watch).test_client().head("/")

    assert (watch.last.outcome, watch.last.bytes_sent) == ("ok", 0)


@pytest.mark.parametrize("part", ["headers", "observe"])
def test_raising_observer_changes_nothing(part: str, caplog: pytest.LogCaptureFixture) -> None:
    """Headers and observers that raise are logged and skipped."""

    def fail(*_: object) -> None:
        raise RuntimeError("broken room")

    app = app_with(room("broken", parts={part: fail}))
    app.add_url_rule("/", view_func=lambda: "hello")

    assert app.test_client().get("/").text == "hello"
    assert "broken room" in caplog.text


def test_record_is_current_in_the_view_and_gone_afterwards(watch: Watch) -> None:
    """Code anywhere in a request finds its record; nested requests have their own."""
    app = app_watched(watch)
    seen: list[str] = []

    @app.get("/outer")
    def outer() -> str:
        before = current_record()
        app.test_client().get("/items/1")
        assert current_record() is before
        seen.append(before.path if before else "")
        return "ok"

    app.test_client().get("/outer")

    assert seen == ["/outer"]
    assert current_record() is None


def test_error_page_of_a_room_is_drawn_for_every_error(watch: Watch) -> None:
    """What no handler of the user answered is drawn by the error pages: unmatched, crash, refusal before Flask."""

    def draw(_record: RequestRecord, error: HTTPException) -> Response:
        return Response(f"drawn {error.code}", error.code)

    step = Step(Stage.HOST, lambda record: BadRequest() if record.path == "/refused" else None)
    app = app_with(room("pages", render=draw, steps=(step,)))
    app.add_url_rule("/crash", view_func=crash)
    client = app.test_client()

    assert [client.get(path).text for path in ("/nope", "/crash", "/refused")] == [
        "drawn 404",
        "drawn 500",
        "drawn 400",
    ]


def test_users_handler_wins_over_the_error_page() -> None:
    """A handler that the application registered, specific or general, is used instead of the room's page."""
    app = app_with(room("pages", render=lambda record, error: Response("drawn", error.code)))
    app.register_error_handler(HTTPException, lambda error: (f"mine {error.code}", error.code))

    assert app.test_client().get("/nope").text == "mine 404"


def test_redirect_is_not_an_error_page() -> None:
    """A trailing-slash redirect stays a redirect."""
    app = app_with(room("pages", render=lambda record, error: Response("drawn", error.code)))
    app.add_url_rule("/folder/", view_func=lambda: request.path)

    assert app.test_client().get("/folder").status_code == 308
