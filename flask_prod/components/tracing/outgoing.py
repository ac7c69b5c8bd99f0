"""Requests that the application makes: they carry the trace's ids, and are measured where it is sampled.

One hook each for urllib3, which requests and most clients stand on, and httpx. Both see every single hop, so a
redirect to another host is judged anew and inherits nothing. A request that has a `traceparent` is left alone.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from flask_prod.core.ports import SpanPort
from flask_prod.core.record import current_record

from .context import TRACEPARENT, TRACESTATE
from .engine import AppTracing, Trace

_MARK = "__flask_prod_traces__"


class Reach:
    """Which hosts are sent the ids: those listed, or all."""

    def __init__(self, hosts: Iterable[str]) -> None:
        names = [host.lower() for host in hosts]
        self._all = not names
        self._exact = frozenset(name for name in names if not name.startswith("*."))
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))

    def covers(self, host: str) -> bool:
        """Tell whether *host* is sent the ids."""
        if self._all:
            return True
        host = host.lower().removesuffix(".")
        return host in self._exact or host.endswith(self._suffixes or ("\0",))


@lru_cache(maxsize=32)
def _reach(hosts: tuple[str, ...]) -> Reach:
    return Reach(hosts)


def _tracing_for(host: str) -> AppTracing | None:
    """Return whose trace goes along to *host*, None when none does."""
    record = current_record()
    trace = record.span if record is not None else None
    if trace.__class__ is not Trace:
        return None
    tracing: AppTracing = trace.tracing
    settings = tracing.settings
    return tracing if settings.outgoing and _reach(settings.outgoing_hosts).covers(host) else None


def _measured(
    tracing: AppTracing, method: str, scheme: str, host: str, port: int | None
) -> AbstractContextManager[SpanPort]:
    """Return the span of one exchange; paths and queries of other services hold tokens, so they are left out."""
    told: dict[str, Any] = {"http.request.method": method, "url.scheme": scheme, "server.address": host}
    if port is not None:
        told["server.port"] = port
    return tracing.span(f"{method} {host}", "client", told)


def _note(span: SpanPort, status: int) -> None:
    span.set("http.response.status_code", status)
    if status >= 400:
        span.set("error.type", str(status))


def _has(headers: Mapping[str, str]) -> bool:
    return any(name.lower() == TRACEPARENT for name in headers)


def patch_urllib3(module: ModuleType) -> None:
    """Wrap `HTTPConnectionPool.urlopen`."""
    pool: Any = module.HTTPConnectionPool
    original = pool.urlopen
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def urlopen(
        self: Any, method: str, url: str, body: Any = None, headers: Any = None, *args: Any, **more: Any
    ) -> Any:
        tracing = _tracing_for(self.host)
        given = self.headers if headers is None else headers
        if tracing is None or _has(given):
            return original(self, method, url, body, headers, *args, **more)
        with _measured(tracing, str(method).upper(), self.scheme, self.host, self.port) as span:
            sent = given.copy() if hasattr(given, "copy") else dict(given)
            for name, value in tracing.carrier().items():
                sent[name] = value
            response = original(self, method, url, body, sent, *args, **more)
            _note(span, response.status)
            return response

    setattr(urlopen, _MARK, True)
    pool.urlopen = urlopen


def patch_httpx(module: ModuleType) -> None:
    """Wrap the `handle_request` of httpx's own transports."""
    transport: Any = module.HTTPTransport
    later: Any = module.AsyncHTTPTransport
    if hasattr(transport.handle_request, _MARK):
        return
    original, original_async = transport.handle_request, later.handle_async_request

    @functools.wraps(original)
    def handle_request(self: Any, request: Any) -> Any:
        tracing = _tracing_for(request.url.host)
        if tracing is None or _has(request.headers):
            return original(self, request)
        url = request.url
        with _measured(tracing, request.method, url.scheme, url.host, url.port) as span, _Lent(tracing, request):
            response = original(self, request)
            _note(span, response.status_code)
            return response

    @functools.wraps(original_async)
    async def handle_async_request(self: Any, request: Any) -> Any:
        tracing = _tracing_for(request.url.host)
        if tracing is None or _has(request.headers):
            return await original_async(self, request)
        url = request.url
        with _measured(tracing, request.method, url.scheme, url.host, url.port) as span, _Lent(tracing, request):
            response = await original_async(self, request)
            _note(span, response.status_code)
            return response

    setattr(handle_request, _MARK, True)
    transport.handle_request = handle_request
    later.handle_async_request = handle_async_request


class _Lent:
    """Headers that an httpx request has while it is sent; a redirect is built from those that stay."""

    def __init__(self, tracing: AppTracing, request: Any) -> None:
        self._tracing = tracing
        self._headers = request.headers

    def __enter__(self) -> None:
        for name, value in self._tracing.carrier().items():
            self._headers[name] = value

    def __exit__(self, *_: object) -> None:
        for name in (TRACEPARENT, TRACESTATE):
            self._headers.pop(name, None)


PATCHES: Mapping[str, Callable[[ModuleType], None]] = {
    "urllib3.connectionpool": patch_urllib3,
    "httpx._transports.default": patch_httpx,
}


def watch() -> None:
    """Hook the libraries that are imported, and each of the others when it is: none is imported for this."""
    for name, patch in PATCHES.items():
        if name in sys.modules:
            patch(sys.modules[name])
    if not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch(MetaPathFinder):
    """Hooks a library right after its import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        patch = PATCHES.get(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if patch is not None else None
        if patch is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
