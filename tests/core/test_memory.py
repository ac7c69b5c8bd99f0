"""Memory of a container, and of a machine."""

from __future__ import annotations

from pathlib import Path

from flask_prod.core.memory import of_container, of_machine


def test_own_group_before_the_root(tmp_path: Path) -> None:
    """A unit of systemd is limited below the root of the hierarchy; no limit there means that of the root."""
    own = tmp_path / "system.slice" / "shop.service"
    own.mkdir(parents=True)
    membership = tmp_path / "membership"
    membership.write_text("0::/system.slice/shop.service\n")
    for folder, used, most in ((tmp_path, 700, 1000), (own, 300, 400)):
        (folder / "memory.current").write_text(str(used))
        (folder / "memory.max").write_text(str(most))
    (own / "memory.stat").write_text("anon 1\ninactive_file 100\n")

    assert of_container(tmp_path, membership) == (200, 400)
    (own / "memory.max").write_text("max")
    assert of_container(tmp_path, membership) == (700, 1000)
    (tmp_path / "memory.max").write_text("max")
    assert of_container(tmp_path, membership) is None


def test_of_machine(tmp_path: Path) -> None:
    """In use is what is not available; a system that does not say has no figures."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable: 40 kB\n\nHugePages_Total: 0\n")

    assert of_machine(meminfo) == (60 * 1024, 100 * 1024)
    meminfo.write_text("MemTotal: 100 kB\n")
    assert of_machine(meminfo) is None
    assert of_machine(tmp_path / "nowhere") is None
