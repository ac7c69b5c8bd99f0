"""What a hit in the cache costs: of a function in memory beside a dict, of a value in Redis beside a bare GET.

All three run in one process in turn, so that they share the machine's moods; medians of rounds.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import redis
from flask import Flask
from flask_caching import Cache

from flask_prod import ProdKit

ROUNDS, PER_ROUND = 31, 500
VALUE = {"id": 7, "name": "mug", "price": 1990, "stock": 12}
Call = Callable[[], Any]


def memory_hit() -> dict[str, float]:
    """Return microseconds of a hit: a dict, Flask-Caching's memoize, a function with the kit's `cached`."""
    table = {7: VALUE}
    other, cache = _by_hand({"CACHE_TYPE": "SimpleCache"})
    by_hand = cache.memoize(60)(_product)
    app, prod = _kit({"CACHE_BACKEND": "memory"})
    kit = prod.cache.cached(ttl="1m", tags=["products", "product:{number}"])(_product)
    return _times(
        {"bare": (app, lambda: table[7]), "by_hand": (other, lambda: by_hand(7)), "kit": (app, lambda: kit(7))}
    )


def tiered_hit(url: str) -> dict[str, float]:
    """Return the same for a memory over Redis, which by hand can only be Redis."""
    table = {7: VALUE}
    other, cache = _by_hand({"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url})
    by_hand = cache.memoize(60)(_product)
    app, prod = _kit({"CACHE_BACKEND": "tiered", "REDIS_URL": url})
    kit = prod.cache.cached(ttl="1m", tags=["products", "product:{number}"])(_product)
    lifecycle = app.extensions["prod"].lifecycle
    lifecycle.start()
    try:
        time.sleep(0.5)  # until it listens
        calls = {
            "bare": (app, lambda: table[7]),
            "by_hand": (other, lambda: by_hand(7)),
            "kit": (app, lambda: kit(7)),
        }
        return _times(calls)
    finally:
        lifecycle.close()


def redis_hit(url: str) -> dict[str, float]:
    """Return microseconds of a hit: redis-py's GET, Flask-Caching's get, the kit's get."""
    client = redis.Redis.from_url(url)
    client.set("bench", b'{"id": 7, "name": "mug", "price": 1990, "stock": 12}')
    other, cache = _by_hand({"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url})
    app, prod = _kit({"CACHE_BACKEND": "redis", "REDIS_URL": url})
    with other.app_context():
        cache.set("bench", VALUE, timeout=60)
    with app.app_context():
        prod.cache.set("bench", VALUE, timeout=60)
    bare = (app, lambda: client.get("bench"))
    found = _times(
        {
            "bare": bare,
            "by_hand": (other, lambda: cache.get("bench")),
            "kit": (app, lambda: prod.cache.get("bench")),
        }
    )
    app.extensions["prod"].lifecycle.close()
    client.close()
    return found


def _product(number: int) -> dict[str, object]:
    return {**VALUE, "id": number}


def _by_hand(config: dict[str, Any]) -> tuple[Flask, Cache]:
    app = Flask("by_hand")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return app, Cache(app, config=config)


def _kit(config: dict[str, Any]) -> tuple[Flask, ProdKit]:
    app = Flask("kit")
    app.config.update(config, ENVIRONMENT="production", SECRET_KEY="b" * 40, METRICS_ENABLED=True)
    prod = ProdKit(app, only=["metrics", "redis", "cache"])
    return app, prod


def _times(calls: dict[str, tuple[Flask, Call]]) -> dict[str, float]:
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, (app, call) in calls.items():
            with app.app_context():
                call()
                began = time.perf_counter()
                for _ in range(PER_ROUND):
                    call()
                rounds[name].append((time.perf_counter() - began) / PER_ROUND * 1e6)
    return {name: statistics.median(times) for name, times in rounds.items()}
