"""logrotate's file, by the real logrotate, under a real server that writes to it."""

from __future__ import annotations

import gzip
import json
import os
import re
import threading
import time
from pathlib import Path

import pytest

from tests import debian
from tests.deploy.test_systemd_run import ask
from tests.deploy.tools import run
from tests.servers import Gunicorn, wait_for


@pytest.mark.deploy
def test_rotation(rendered: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """logrotate turns the file under a running server: not a line is lost, and the new file is written at once."""
    rotate = _logrotate(pytestconfig)
    log = tmp_path / "log" / "shop.log"
    log.parent.mkdir(mode=0o750)
    env = {
        "ENVIRONMENT": "production",
        "SECURITY_FORCE_HTTPS": "0",
        "LOG_OUTPUT": str(log),
        "RATE_LIMIT_ENABLED": "0",
    }
    env |= {
        "SECRET_KEY": "0123456789abcdef" * 4,
        "RUN_DIR": str(tmp_path / "run"),
        "ENV_FILE": os.devnull,
        "SECRETS_DIR": os.devnull,
    }
    app = "tests.deploy.served:create_app()"
    kit = "python:flask_prod.server.gunicorn_conf"
    with Gunicorn(app, config=kit, args=["-w", "2"], env=env, ready="/health/live") as service:
        config = _for_this_machine(rendered / "systemd" / "logrotate.d" / "shop", log.parent, service.pid)
        (tmp_path / "shop").write_text(config)
        said = run(rotate, "-d", tmp_path / "shop")
        assert said.returncode == 0, said.stderr
        assert "error" not in said.stderr.lower(), said.stderr

        asked: list[int] = []
        end = threading.Event()
        client = threading.Thread(target=ask, args=(service.port, end, asked, "/greeting"))
        client.start()
        for turn in range(2):
            before = len(asked)
            wait_for(lambda before=before: len(asked) > before + 30, 20, "requests")  # type: ignore[misc]
            done = run(rotate, "--force", "--state", tmp_path / "state", tmp_path / "shop")
            assert done.returncode == 0, done.stderr
            wait_for(lambda: log.exists() and log.stat().st_size > 0, 5, "lines in the new file")
            time.sleep(1.1 * (turn == 0))  # names of turned files have seconds
        end.set()
        client.join(10)
        wait_for(lambda: _lines(log.parent) >= len(asked), 5, "the last lines")

    assert len(list(log.parent.iterdir())) == 3
    assert _lines(log.parent) == len(asked)
    assert len(list(log.parent.glob("*.gz"))) == 1


def _logrotate(config: pytest.Config) -> str:
    """Return the path of logrotate with its libraries; skip the test where it cannot be had."""
    try:
        without = ("cron", "anacron", "systemd", "sensible")
        return debian.provide(["logrotate"], "logrotate", debian.kept(config), without)
    except debian.Missing as error:
        pytest.skip(str(error))


def _for_this_machine(config: Path, folder: Path, pid: int) -> str:
    """Return logrotate's file with the folder, the user and the way to send a signal that this machine has."""
    text = config.read_text().replace("/var/log/shop", str(folder)).replace("shop shop", "root root")
    if os.geteuid() != 0:
        text = re.sub(r"^ +su .*\n", "", text, flags=re.MULTILINE).replace("create 0640 root root", "create 0640")
    way = "systemctl kill --kill-whom=main --signal=SIGUSR1 shop-web.service 2>/dev/null || true"
    assert way in text
    return text.replace(way, f"kill -USR1 {pid}")


def _lines(folder: Path) -> int:
    """Return how many answered requests all log files tell of, the compressed too."""
    found = 0
    for path in folder.iterdir():
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found += sum(json.loads(line).get("path") == "/greeting" for line in raw.splitlines())
    return found
