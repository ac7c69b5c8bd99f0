"""systemd's units: verified by its own programs; names, time limits and secrets that fit one another."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from flask_prod.deploy.calendar import calendar_of
from tests.deploy.analyze import analyze
from tests.deploy.conftest import render
from tests.deploy.tools import run

EXPOSURE = 1.1
"""What `systemd-analyze security` gives the units, of 10; less is better."""

BARE = """
from flask import Flask
from flask_prod import ProdKit

app = Flask("notes")
ProdKit(app, only=("health", "headers"))
"""


@pytest.fixture(scope="session")
def units(rendered: Path) -> Path:
    """Return the folder of the shop's units."""
    return rendered / "systemd"


def words(unit: Path, key: str) -> list[str]:
    """Return the values of a key of a unit, in their order."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


def test_every_name_exists(units: Path) -> None:
    """Each unit that another one names is there, or is systemd's own."""
    known = {path.name for path in units.iterdir()} | {"network-online.target", "multi-user.target"}
    known |= {"sockets.target", "timers.target"}
    for unit in (path for path in units.iterdir() if path.suffix in (".service", ".socket", ".target", ".timer")):
        for key in ("Requires", "Wants", "After", "Before", "PartOf", "WantedBy"):
            assert set(" ".join(words(unit, key)).split()) <= known, unit.name


def test_times_and_secrets(units: Path) -> None:
    """The time to end is that of the settings, everywhere the same, and every secret is handed over as a file."""
    web, worker = units / "shop-web.service", units / "shop-worker.service"
    told = re.findall(r"^TERMINATION_GRACE=(.*)s$", (units / "shop.env").read_text(), re.MULTILINE)

    assert words(web, "TimeoutStopSec") == words(worker, "TimeoutStopSec") == told == ["30"]
    for unit in units.glob("*.service"):
        assert "DATABASE_URL:/etc/shop/secrets/DATABASE_URL" in words(unit, "LoadCredential")
        assert words(unit, "KillMode") in ([], ["mixed"])
    assert "SECRET" not in (units / "shop.env").read_text().replace("secrets", "").upper().replace(
        "NO SECRETS", ""
    )


def test_small_application(tmp_path: Path) -> None:
    """An application without jobs and database gets a web server, and nothing that it has no use for."""
    (tmp_path / "notes.py").write_text(BARE)

    render("systemd", "scripts", to=tmp_path / "deploy", app="notes", cwd=tmp_path)

    made = {path.name for path in (tmp_path / "deploy" / "systemd").iterdir()}
    assert made == {
        "notes-web.service", "notes-web.socket", "notes.target", "notes.env", "notes-flask", "logrotate.d",
        "sysusers.d", "tmpfiles.d",
    }  # fmt: skip
    scripts = tmp_path / "deploy" / "scripts"
    assert not (scripts / "backup.sh").exists()
    for script in scripts.glob("*.sh"):
        assert "db check" not in script.read_text()
        assert "worker.service" not in script.read_text()


@pytest.fixture(scope="session")
def installed(units: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the units whose programs are somewhere else and exist."""
    folder = tmp_path_factory.mktemp("units")
    for release in ("current", "releases/i", "releases/test"):
        (folder / "opt" / release / ".venv" / "bin").mkdir(parents=True)
        for name in ("flask", "gunicorn"):
            path = folder / "opt" / release / ".venv" / "bin" / name
            path.write_text("#!/bin/sh\n")
            path.chmod(0o755)
    for unit in units.iterdir():
        if unit.suffix in (".service", ".socket", ".target", ".timer"):
            text = unit.read_text().replace("/opt/shop/", f"{folder}/opt/")
            (folder / unit.name).write_text(text.replace("/bin/kill", "/bin/true"))  # kill: not on small machines
    return folder


@pytest.mark.deploy
def test_verified(installed: Path, pytestconfig: pytest.Config) -> None:
    """systemd has nothing to say of the units: it exits with 0 also for keys that it does not know."""
    names = sorted(path for path in installed.iterdir() if path.is_file())

    done = run(analyze(pytestconfig), "verify", "--man=no", *names)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    broken = installed / "shop-worker.service"
    text = broken.read_text()
    broken.write_text(text.replace("KillMode=", "KilMode="))
    said = run(analyze(pytestconfig), "verify", "--man=no", broken)
    broken.write_text(text)
    assert "Unknown key" in said.stderr


@pytest.mark.deploy
def test_exposure(units: Path, pytestconfig: pytest.Config) -> None:
    """No unit is more exposed than all of them are now."""
    for unit in units.glob("*.service"):
        limit = f"--threshold={EXPOSURE * 10:.0f}"
        done = run(analyze(pytestconfig), "security", "--offline=true", "--no-pager", limit, unit)
        assert done.returncode == 0, done.stdout.splitlines()[-1]


@pytest.mark.deploy
def test_calendar(pytestconfig: pytest.Config) -> None:
    """systemd understands every schedule that cron does, and means the same by it."""
    schedules = ("15 2 * * *", "*/20 1-5 * * 1-5", "0 0,12 1 */2 *", "30 4 1,15 * 5", "5 4 * * sun", "@daily")
    for schedule in schedules:
        for moment in calendar_of(schedule):
            done = run(analyze(pytestconfig), "calendar", moment)
            assert done.returncode == 0, (schedule, moment, done.stderr)


@pytest.mark.deploy
@pytest.mark.skipif(os.geteuid() != 0, reason="users and folders are made by root")
def test_user_and_folders(units: Path, tmp_path: Path) -> None:
    """systemd makes the user that the units name, and folders of which root alone can read the secrets."""
    for name in ("systemd-sysusers", "systemd-tmpfiles"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not here")
    (tmp_path / "etc").mkdir()

    users = run("systemd-sysusers", f"--root={tmp_path}", units / "sysusers.d" / "shop.conf")
    folders = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", units / "tmpfiles.d" / "shop.conf")

    assert (users.returncode, folders.returncode) == (0, 0), users.stderr + folders.stderr
    (user,) = words(units / "shop-web.service", "User")
    (line,) = [one for one in (tmp_path / "etc" / "passwd").read_text().splitlines() if one.startswith(f"{user}:")]
    assert line.endswith(":/var/lib/shop:/usr/sbin/nologin")
    assert (tmp_path / "etc" / "shop" / "secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "opt" / "shop" / "releases").is_dir()
