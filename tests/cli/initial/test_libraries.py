"""What the application does by hand that the kit does now is told, in each way it may be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_prod.cli.initial.libraries import advice
from flask_prod.cli.initial.project import Project

SOURCES = {
    "from flask_limiter import Limiter as L\nlimiter: L = L()\n": "line 2: `limiter = L(...)` of Flask-Limiter",
    "import flask_caching\ncache = flask_caching.Cache()\n": "`cache = flask_caching.Cache(...)` of Flask-Caching",
    "from flask_talisman import Talisman\nTalisman(app)\n": "`Talisman(...)` of Flask-Talisman",
    "from flask_cors import CORS\nCORS(app)\n": "use `prod.cors`; ALLOWED_ORIGINS",
    "import sentry_sdk\ndef f():\n    sentry_sdk.init()\n": "line 3: `sentry_sdk.init(...)` of the Sentry SDK",
    "from prometheus_flask_exporter import PrometheusMetrics\nPrometheusMetrics(app)\n": "use `prod.metrics`",
    "from werkzeug.middleware.proxy_fix import ProxyFix\napp.wsgi_app = ProxyFix(app)\n": "TRUSTED_PROXIES",
    "@app.get('/health')\ndef f(): pass\n": "HEALTH_PATH gives",
    "app.add_url_rule('/metrics', view_func=f)\n": "METRICS_PATH gives",
    "app.config['SECRET_KEY'] = 'hunter2'\n": "line 1: SECRET_KEY stands in the code",
    "app.secret_key = 'hunter2'\n": "SECRET_KEY stands in the code",
    "class Config:\n    SECRET_KEY = 'hunter2'\n": "line 2: SECRET_KEY stands in the code",
    "app.config.update(SECRET_KEY='hunter2')\n": "SECRET_KEY stands in the code",
}

NOTHING = [
    "class Limiter: pass\nLimiter()\n",
    "from cachetools import Cache\nCache()\n",
    "import os\nSECRET_KEY = os.environ['SECRET_KEY']\napp.config['SECRET_KEY'] = SECRET_KEY\n",
    "SECRET_KEY = None\n",
    "class TestingConfig:\n    SECRET_KEY = 'x'\n",
    "@app.get('/healthy')\ndef f(): pass\n",
    "requests.get('/other')\n",
]


@pytest.mark.parametrize("source", SOURCES)
def test_told(source: str, tmp_path: Path) -> None:
    """Each is one line with file, line and what stands in its place, and never a secret."""
    (tmp_path / "app.py").write_text(source)
    (said,) = advice(Project(tmp_path))

    assert said.startswith("app.py, line ")
    assert SOURCES[source] in said
    assert "hunter2" not in said


@pytest.mark.parametrize("source", NOTHING)
def test_not_told(source: str, tmp_path: Path) -> None:
    """What only looks like it is not told."""
    (tmp_path / "app.py").write_text(source)

    assert list(advice(Project(tmp_path))) == []


def test_not_read(tmp_path: Path) -> None:
    """Tests, virtual environments and hidden folders are not the application."""
    for folder in ("tests", ".hidden", "env2", "node_modules"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "app.py").write_text("app.secret_key = 'x'\n")
    (tmp_path / "env2" / "pyvenv.cfg").touch()
    (tmp_path / "test_app.py").write_text("app.secret_key = 'x'\n")

    assert list(advice(Project(tmp_path))) == []
