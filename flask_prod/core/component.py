"""The leaf that every room imports: what a component is, and what it may contribute.

A component returns its contribution and pushes nothing into other rooms. Health, metrics, logs and the CLI
read contributions; no room knows that they exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from .ports import Meter, Tracer
from .record import RequestRecord
from .rule import Rule
from .settings import Section, ServiceSettings

if TYPE_CHECKING:
    import click
    from flask import Flask
    from werkzeug.exceptions import HTTPException
    from werkzeug.wrappers import Response

    from .early import Ready

SettingsT = TypeVar("SettingsT", bound=Section)
HandleT = TypeVar("HandleT")

HeaderList: TypeAlias = list[tuple[str, str]]
Pairs: TypeAlias = tuple[tuple[str, str], ...]
Ask: TypeAlias = "Callable[[RequestRecord], Response | HTTPException | None]"
Finder: TypeAlias = "Callable[[RequestRecord], tuple[Ready, Pairs] | None]"


class Stage(IntEnum):
    """Where in the one pass a step is asked; pipeline.py runs the stages in this order.

    Stages before `HTTPS` run at WSGI level, before Flask builds a context. The others run after routing and
    before the application's own before_request functions. Two are asked about some requests only: `PREFLIGHT`
    about those by OPTIONS, `HTTPS` about those by plain HTTP.
    """

    PROXY = 1
    IDENTITY = 2
    HOST = 4
    PREFLIGHT = 5
    HTTPS = 6
    LIMIT = 7
    CACHE = 8


@dataclass(frozen=True, slots=True)
class Step:
    """A guard: asked at its stage, it lets the request pass (None) or answers it.

    A returned HTTPException is raised where Flask can still show the user's own error handlers; at WSGI level it
    is rendered by the error pages. With a `path` the step is asked only about paths that begin with it: at the
    stages PROXY and IDENTITY other requests then do not pay for it. From HTTPS on, `lean` tells of a request
    whether `ask` needs nothing of Flask: then it may be asked before Flask is entered, about an early answer.
    """

    stage: Stage
    ask: Ask
    path: str = ""
    lean: Callable[[RequestRecord], bool] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw: `status` is ok, warn or fail; `detail` is one sentence without secrets."""

    status: str = "ok"
    detail: str = ""
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """A health check: returns None or a Finding, raises when the thing is down.

    `timeout` is in seconds; None means HEALTH_TIMEOUT. `ready` lets a failure take the instance out of the
    load balancer, which is right for local state and wrong for a dependency that all instances share. A `local`
    check is about this process, so each worker runs it; of others one worker of a host asks for all.
    """

    name: str
    probe: Callable[[], Finding | None]
    critical: bool = True
    ready: bool = False
    timeout: float | None = None
    local: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth a log line and, from severity error on, an error report: `prod.breaker.opened`.

    Names are dotted and stable; `fields` hold no secrets. Severity is a `logging` level name in lower case.
    `error` is the exception behind it, whose stack an error report shows.
    """

    name: str
    message: str
    severity: str = "info"
    fields: Mapping[str, object] = field(default_factory=dict)
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Periodic:
    """Work done again and again in each serving process, by the one thread that all components share.

    `seconds` lie between the end of one call and the next. A call must be short: what may hang belongs in a
    thread of its own.
    """

    name: str
    seconds: float
    call: Callable[[], None]


class Installed(Protocol):
    """What a component may ask while it is being installed."""

    @property
    def app(self) -> Flask:
        """The application the kit is being installed on."""

    @property
    def service(self) -> ServiceSettings:
        """Who this service is: name, version, environment, namespace."""

    @property
    def contributions(self) -> Mapping[str, Contribution[Any]]:
        """All contributions by component name; complete once `init_app` has returned."""

    @property
    def meter(self) -> Meter:
        """Where a component makes metrics of its own, to be called during `install`."""

    @property
    def tracer(self) -> Tracer:
        """Where a component tells what a request spends its time on."""

    def handle(self, name: str) -> Any:
        """What an earlier component gives to others, or None when it is left out."""

    def emit(self, event: Event) -> None:
        """Tell every room that listens; never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution(Generic[HandleT]):
    """All that a component adds to an application; every field is optional."""

    handle: HandleT
    """What other components get from `kit.handle(name)`, and users from `prod.get(name)`."""

    steps: tuple[Step, ...] = ()
    """Guards of the one pass; only these may answer."""

    early: Finder | None = None
    """Finds an answer that needs nothing of Flask, with those of its headers that are new each time, and says in
    the record whose endpoint and route it is; it is given once the steps from HTTPS on have let the request pass.
    One room at most."""

    headers: Callable[[RequestRecord, HeaderList], None] | None = None
    """Adds to the headers of every answer, whatever its status and whoever gave it."""

    steady: bool = False
    """Whether early answers may repeat what `headers` has added, to requests of the same route, method, scheme,
    host and Origin that are given the same answer. For one request it forbids that by `record.singular`."""

    observe: Callable[[RequestRecord], None] | None = None
    """Told when the body is closed; can neither change nor fail the answer."""

    on_event: Callable[[Event], None] | None = None
    """Told of every event of this application's rooms."""

    render: Callable[[RequestRecord, HTTPException], Response] | None = None
    """Draws the answer for an error that no handler of the user answered; one room at most."""

    meter: Meter | None = None
    """Where components installed later make metrics of their own; one room at most."""

    tracer: Tracer | None = None
    """Where components installed later tell what a request spends its time on; one room at most."""

    operational: tuple[str, ...] = ()
    """Paths of probes and scrapes; one that ends in a slash covers the paths below it."""

    checks: tuple[Check, ...] = ()
    """Questions that `/health` and `flask prod health` ask."""

    commands: tuple[click.Command, ...] = ()
    """Commands that appear under `flask prod`."""

    rules: tuple[Rule, ...] = ()
    """What `flask prod check` asks besides its own rules; each id is a word of capitals and a number: `GEO01`."""

    start: Callable[[], None] | None = None
    """Called once in each serving process, after the fork: the place to start threads."""

    periodic: tuple[Periodic, ...] = ()
    """Work done again and again in each serving process, from its start to its end."""

    reload: Callable[[Any], Callable[[], None]] | None = None
    """Prepares the room's section with changed values in its `live` fields, and returns what puts them in force.

    ConfigError refuses them. What is returned must not fail, nor make requests wait: those under way keep what
    they have."""

    after_fork: Callable[[], None] | None = None
    """Called in every forked child: drop what the parent still owns, without closing it."""

    close: Callable[[], None] | None = None
    """Called once when the process ends, in reverse order of installation."""


class Component(Generic[SettingsT, HandleT]):
    """A room of the house: a name, a section of settings, and `install`.

    `requires` names components that must be there first (they are added), `after` those that come first when
    they are there at all.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[tuple[str, ...]] = ()
    leaves: ClassVar[bool] = False
    """True for one that goes without a word when what it requires is left out: nobody misses it then."""
    settings: ClassVar[type[Section]] = Section

    def face(self) -> object | None:
        """Build the object that users hold before any application exists; None if there is none.

        Called once per kit. What it does in a request belongs to the current application.
        """
        return None

    def install(self, app: Flask, settings: SettingsT, kit: Installed) -> Contribution[HandleT]:
        """Build what one application needs from its validated settings."""
        raise NotImplementedError
