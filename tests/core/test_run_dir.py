"""Where processes of one service on one host leave word for one another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flask_prod.core.run_dir import Leader, run_dir
from flask_prod.core.settings import ServiceSettings


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_the_directory_is_the_same_for_one_service_only() -> None:
    """Name, environment and place of the application choose the directory; nobody else can read it."""
    shop = run_dir(ServiceSettings(service_name="shop"), "/srv/shop")
    assert shop is not None
    assert shop == run_dir(ServiceSettings(service_name="shop"), "/srv/shop")
    assert shop.stat().st_mode & 0o077 == 0
    others = [
        run_dir(ServiceSettings(service_name="blog"), "/srv/shop"),
        run_dir(ServiceSettings(service_name="shop", environment="staging"), "/srv/shop"),
        run_dir(ServiceSettings(service_name="shop"), "/srv/shop2"),
    ]
    assert len({shop, *others}) == 4


def test_a_link_that_somebody_laid_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link in the shared temporary directory is no directory of ours."""
    shop = run_dir(ServiceSettings(service_name="shop"), "/srv/shop")
    assert shop is not None
    shop.rmdir()
    (tmp_path / "elsewhere").mkdir()
    shop.symlink_to(tmp_path / "elsewhere")
    assert run_dir(ServiceSettings(service_name="shop"), "/srv/shop") is None


def test_a_place_that_cannot_be_made_is_none(tmp_path: Path) -> None:
    """Where nothing can be written the service goes on without the directory."""
    (tmp_path / "file").write_text("")
    assert run_dir(ServiceSettings(run_dir=str(tmp_path / "file" / "run")), "/srv/shop") is None


def test_one_process_leads_until_it_ends(tmp_path: Path) -> None:
    """Of two processes one leads; when it is killed the other takes the place."""
    code = (
        "import sys; from pathlib import Path; from flask_prod.core.run_dir import Leader;"
        "leader = Leader(Path(sys.argv[1]), 'alerts'); print(leader.leads(), flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdin is not None
    try:
        assert other.stdout.readline() == "True\n"
        leader = Leader(tmp_path, "alerts")
        assert not leader.leads()
    finally:
        other.kill()
        other.wait()
        other.stdin.close()
        other.stdout.close()
    assert leader.leads()
    assert leader.leads()
    leader.resign()


def test_without_a_directory_every_process_leads() -> None:
    """What cannot be settled between processes is done by each rather than by none."""
    assert Leader(None, "alerts").leads()
