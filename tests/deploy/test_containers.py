"""The rig itself: what a run that was killed has left is gone after the next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import wait_for

from .containers import PREFIX, STAND_IN, Rig

DOCKERFILE = f"FROM {STAND_IN}\nRUN sleep 10\n"


@pytest.mark.deploy
@pytest.mark.timeout(300)  # whoever comes first waits until the engine is installed
def test_what_is_left(rig: Rig, tmp_path: Path) -> None:
    """Containers, stacks and half-built images of a process that is no more are removed; those of others stay."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    stack = f"{PREFIX}{ended.pid}"
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    rig.podman("create", "--name", f"{stack}_web", f"--label=io.podman.compose.project={stack}", STAND_IN, "true")
    rig.podman("volume", "create", f"{stack}_data")
    rig.podman("network", "create", f"{stack}_front")
    with subprocess.Popen(["podman", "build", "--quiet", "--pull=never", tmp_path], env=rig.env) as build:
        wait_for(lambda: "flask-prod-tests" in rig.buildah("containers"), 30, "an image that is half built")
        build.kill()

    with rig.run(STAND_IN, "sleep", "60") as mine:
        rig.remove_abandoned()

        assert mine.running
    everything = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
    assert [words for words in everything if stack in rig.podman(*words).stdout] == []
    assert "flask-prod-tests" not in rig.buildah("containers")
