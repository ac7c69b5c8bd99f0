"""Disk, memory and folders of this host."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from flask_prod.components.health import host
from flask_prod.core.component import Check, Finding

MB = 1024 * 1024


class Usage(NamedTuple):
    """What shutil.disk_usage gives."""

    total: int
    used: int
    free: int


def look(check: Check) -> Finding:
    """Run a check."""
    found = check.probe()
    assert found is not None
    return found


@pytest.mark.parametrize(("free", "status"), [(50, "ok"), (10, "ok"), (9, "warn"), (2, "warn"), (1, "fail")])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, status: str) -> None:
    """Below the share that should be free the check warns, below a fifth of it it fails."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 100 - free, free))
    found = look(host.disk([tmp_path / "not" / "yet"], 0.1))

    assert found.status == status
    assert found.data["free_percent"] == free


def cgroup2(root: Path, current: int, most: str) -> None:
    (root / "memory.current").write_text(f"{current}\n")
    (root / "memory.max").write_text(f"{most}\n")
    (root / "memory.stat").write_text(f"anon 1\ninactive_file {50 * MB}\n")


@pytest.mark.parametrize(("used", "status"), [(900, "ok"), (1000, "warn")])
def test_memory_of_version_2(tmp_path: Path, used: int, status: str) -> None:
    """What the kernel can take back at once does not count as used."""
    cgroup2(tmp_path, used * MB, str(1000 * MB))
    (tmp_path / "membership").write_text("0::/\n")
    found = look(host.memory(0.9, tmp_path, tmp_path / "membership"))

    assert found.status == status
    assert found.data == {"used_mb": used - 50, "limit_mb": 1000}


def test_memory_of_version_1(tmp_path: Path) -> None:
    """The older files are read where the newer are not; a number beyond all machines is no limit."""
    own = tmp_path / "memory" / "docker" / "x"
    own.mkdir(parents=True)
    (own / "memory.usage_in_bytes").write_text(str(95 * MB))
    (own / "memory.limit_in_bytes").write_text(str(100 * MB))
    (tmp_path / "membership").write_text("3:cpu:/\n2:memory:/docker/x\n")
    check = host.memory(0.9, tmp_path, tmp_path / "membership")
    assert look(check).detail == "95% of the container's memory is in use"

    (own / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert look(check) == Finding(detail="there is no limit")


@pytest.mark.parametrize("content", ["max", "", "?"])
def test_memory_without_limit(tmp_path: Path, content: str) -> None:
    """Without a limit, and where nothing can be read, there is nothing to warn of."""
    cgroup2(tmp_path, MB, content)

    assert look(host.memory(0.9, tmp_path, tmp_path / "none")) == Finding(detail="there is no limit")


def test_storage(tmp_path: Path) -> None:
    """A folder that can be written is well and left as it was; one that is missing is named."""
    assert look(host.storage([str(tmp_path)])).data == {"folders": 1}
    assert list(tmp_path.iterdir()) == []
    gone = tmp_path / "gone"

    assert look(host.storage([str(tmp_path), str(gone)])) == Finding(
        "fail", f"{gone} cannot be written: No such file or directory"
    )
