"""release.sh of ECS against a stand-in for the AWS CLI that notes what it is asked."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .test_ecs import IMAGE, about, folder, plan

__all__ = ["about", "folder", "plan"]  # fixtures


FAKE = """#!/bin/sh
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in
  *"OutputKey=='Cluster'"*) echo shop-cluster ;;
  *"OutputKey=='Subnets'"*) echo subnet-1,subnet-2 ;;
  *"OutputKey=='ServiceGroup'"*) echo sg-1 ;;
  *"OutputKey=='Image'"*) [ -z "$STACK" ] || exit "$STACK"; echo "$OLD" ;;
  *"OutputKey=='Version'"*) echo 1.0.0 ;;
  *OutputKey*) echo arn:aws:ecs:eu-west-1:1:task-definition/shop ;;
  *run-task*) echo "${TASK-arn:aws:ecs:eu-west-1:1:task/shop}" ;;
  *"wait tasks-stopped"*) exit "${WAIT:-0}" ;;
  *describe-tasks*) echo "${CODE:-0}" ;;
  *"-service --template-file"*) exit "${SERVICE:-0}" ;;
esac
"""


@pytest.fixture
def release(folder: Path, tmp_path: Path) -> Callable[..., tuple[int, str, list[str]]]:
    """Run release.sh with a stand-in for the AWS CLI; give exit code, output and the calls it made."""
    (tmp_path / "aws").write_text(FAKE)
    (tmp_path / "aws").chmod(0o755)

    def call(*words: str, **said: str) -> tuple[int, str, list[str]]:
        calls = tmp_path / "calls"
        calls.write_text("")
        environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), "OLD": IMAGE, **said}
        done = subprocess.run(
            ["sh", str(folder / "release.sh"), *words],
            env=environ, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines()

    return call


Release = Callable[..., tuple[int, str, list[str]]]


def test_a_release_migrates_first(release: Release) -> None:
    """The services get the new image when the migration has ended well, in the subnets of the base."""
    code, said, calls = release("deploy", "production", IMAGE, "1.2.3")
    migrated = next(number for number, call in enumerate(calls) if "run-task" in call)
    deployed = next(number for number, call in enumerate(calls) if "shop-production-service" in call)

    assert (code, said) == (0, "")
    assert migrated < deployed == len(calls) - 1
    assert "awsvpcConfiguration={subnets=[subnet-1,subnet-2],securityGroups=[sg-1]," in calls[migrated]
    assert f"Base=shop-production Environment=production Image={IMAGE} Version=1.2.3" in calls[deployed]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"CODE": "1"}, "The migration failed (exit code 1), nothing was deployed"),
        ({"CODE": "None"}, "The migration failed (exit code None), nothing was deployed"),
        ({"WAIT": "255", "MIGRATION_ROUNDS": "2"}, "The migration still runs"),
        ({"TASK": "None"}, "ECS has started no task"),
    ],
)
def test_a_failed_migration_deploys_nothing(release: Release, said: dict[str, str], words: str) -> None:
    """A migration that fails, does not end or does not start leaves the services as they were."""
    code, told, calls = release("deploy", "staging", IMAGE, "1", **said)

    assert code == 1
    assert words in told
    assert not [call for call in calls if "-service" in call]


def test_the_way_back_runs_no_migration(release: Release) -> None:
    """An earlier image comes back by itself: its migrations are long done, newer ones must not be undone."""
    code, _, calls = release("back", "production", IMAGE, "1.2.2")

    assert code == 0
    assert len(calls) == 1
    assert "shop-production-service" in calls[0]


def test_what_runs_now(release: Release) -> None:
    """The image to go back to is asked for before a release."""
    code, told, _ = release("now", "production", STACK="255")

    assert release("now", "production")[:2] == (0, f"{IMAGE} 1.0.0\n")
    assert (code, told) == (0, "There is no release to go back to.\n")


def test_a_refused_release(release: Release) -> None:
    """A release that ECS rolls back ends with an error; a tag, or a word too few, is refused at once."""
    assert release("deploy", "production", IMAGE, "1", SERVICE="255")[0] == 255
    for words in (
        ("deploy", "production", "shop:latest", "1"),
        ("deploy", "production", IMAGE),
        ("now",),
        ("up", "x"),
    ):
        code, told, calls = release(*words)
        assert (code, calls) == (64, [])
        assert told
