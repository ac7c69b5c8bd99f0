"""One application in a process of its own: says `ready`, then serves as many requests as each line of input says.

Run as `python -m bench.child NAME`; answers each line with the seconds that its requests took.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from time import perf_counter
from typing import Any

from werkzeug.test import EnvironBuilder

WARM_UP = 200
SEED = 1
"""With it 10 of the 1,000 requests after the warm-up are sampled, which is what 1 % means."""
HEADERS = {
    "Host": "shop.example",
    "Origin": "https://shop.example",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "User-Agent": "bench/1.0",
    "Accept": "application/json",
}


def serve(app: Any, environ: dict[str, Any], times: int) -> float:
    """Serve *times* requests as a WSGI server would; return the seconds they took."""
    began = perf_counter()
    for _ in range(times):
        body = app(environ.copy(), _start_response)
        for _chunk in body:
            pass
        body.close()
    return perf_counter() - began


def _start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
    if status != "200 OK":
        raise RuntimeError(f"the benchmark's request was answered with {status}")


def _stop_clocks(app: Any) -> None:
    """End what a kit does every so many seconds: where instructions are counted, a second holds few requests."""
    state = app.extensions.get("prod")
    if state is None:
        return
    health = state.lifecycle.handle("health")
    for work in (state.lifecycle._ticker, health and health._rounds):
        if work is not None:
            work.stop()


def main(name: str) -> None:
    """Build the application and obey."""
    from bench.apps import build
    from bench.health import PATHS

    random.seed(SEED)
    app = build(name)
    environ = EnvironBuilder(PATHS.get(name, "/api/items/7"), headers=list(HEADERS.items())).get_environ()
    serve(app, environ, WARM_UP)
    if "BENCH_COUNTED" in os.environ:
        _stop_clocks(app)
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        print(serve(app, environ, int(line)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
