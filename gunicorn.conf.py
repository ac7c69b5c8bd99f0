"""How gunicorn serves an application with a ProdKit; `gunicorn "sample_app:create_app()"` finds this file itself.

Whatever you define here wins: `workers = 8`, or a hook of your own, which is called together with the kit's.
Without a line of yours: bind from HOST and PORT, one worker per CPU of the container (WEB_CONCURRENCY wins),
gthread with WEB_THREADS threads, SHUTDOWN_SECONDS to finish: see ServerSettings in flask_prod/server/gunicorn.py.
"""

from flask_prod.server.gunicorn import (
    child_exit,
    compose,
    on_exit,
    on_reload,
    on_starting,
    post_fork,
    post_worker_init,
    pre_fork,
    pre_request,
    when_ready,
    worker_exit,
)

__all__ = [
    "child_exit", "on_exit", "on_reload", "on_starting", "post_fork", "post_worker_init", "pre_fork",
    "pre_request", "when_ready", "worker_exit",
]  # fmt: skip

globals().update(compose(globals()))
