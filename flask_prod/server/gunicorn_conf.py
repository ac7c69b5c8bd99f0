"""For `gunicorn -c python:flask_prod.server.gunicorn_conf "shop:create_app()"`, without a file of your own."""

from __future__ import annotations

from flask_prod.server.gunicorn import compose

globals().update(compose())
