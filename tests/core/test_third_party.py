from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "third_party"

APP = """
    from flask import Flask
    from flask_prod import ProdKit

    app = Flask("shop")
    app.config.update(ENVIRONMENT="test", REGION_REFUSED="XX")
    app.add_url_rule("/", view_func=lambda: "hello")
    prod = ProdKit(app, only=(), extra=("region",))

    client = app.test_client()
    served = client.get("/", headers={"X-Edge-Country": "FR"})
    refused = client.get("/", headers={"X-Edge-Country": "XX"})
    with app.app_context():
        print(served.status_code, served.headers["X-Region"], refused.status_code, prod.get("region").refused)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built and installed into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    subprocess.run(["cp", "-r", f"{SOURCE}/.", source], check=True)
    command = ["pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([sys.executable, "-m", *command, target, source], check=True, stdout=subprocess.DEVNULL)
    return target


def run(code: str, site: Path | None, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(site or "")}
    call: list[str] = [sys.executable, *(command or ("-c", textwrap.dedent(code)))]
    return subprocess.run(call, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_component_by_entry_point(installed: Path) -> None:
    """A third party's component, switched on by name, reads settings, guards, adds headers and has a handle."""
    done = run(APP, installed)

    assert done.stdout.split(maxsplit=3) == ["200", "FR", "403", "frozenset({'XX'})\n"], done.stderr


def test_its_command_appears_in_the_cli(installed: Path, tmp_path: Path) -> None:
    """The command it contributes runs as `flask prod regions`."""
    (tmp_path / "shop.py").write_text(textwrap.dedent(APP))

    done = run("", installed, "-m", "flask", "--app", str(tmp_path / "shop.py"), "prod", "regions")

    assert done.stdout.splitlines()[-1] == "XX", done.stderr


def test_its_rule_is_asked(installed: Path, tmp_path: Path) -> None:
    """`flask prod check` asks the component's rule as it asks our own: found, silenced and shown by its id."""
    (tmp_path / "shop.py").write_text(textwrap.dedent(APP).replace('"XX"', '""'))
    check = ["-m", "flask", "--app", str(tmp_path / "shop.py"), "prod", "check", "--only", "REGION"]

    found = run("", installed, *check)
    silenced = run("", installed, *check, "--silence", "REGION01=all are welcome")

    assert found.returncode == 1, found.stderr
    assert "REGION01  warning  Every region is served" in found.stdout
    assert "REGION_REFUSED is empty" in found.stdout
    assert silenced.returncode == 0, silenced.stdout
    assert "REGION01  silenced" in silenced.stdout


def test_absent_component() -> None:
    """A name that no distribution provides is refused with a clear sentence."""
    assert "There is no component called 'region'" in run(APP, None).stderr
