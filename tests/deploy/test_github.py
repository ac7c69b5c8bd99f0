"""Workflows: what they call exists, fits, and is pinned; the script that releases does so in the right order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import tools
from .conftest import ROOT, render

IMAGE = "registry.example.com/shop@sha256:" + "a" * 64

KUBECTL = """#!/bin/sh
# Notes what it is asked for; renders for real, and answers as the cluster of the test does.
case $1 in
  kustomize) exec "$KUBECTL" "$@" ;;
esac
echo "$*" >> "$NOTES"
case $* in
  *"get"*"job"*) printf '%s' "$JOB" ;;
  *"get"*"rollout"*) printf '%s' "$ROLLOUT" ;;
esac
"""


def workflow(path: Path) -> dict[str, Any]:
    """Return a workflow; YAML 1.1 takes its key `on` for true."""
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return {"on" if key is True else key: value for key, value in found.items()}


@pytest.fixture(scope="module")
def workflows(rendered: Path) -> dict[str, dict[str, Any]]:
    """Return the workflows by the name of their file."""
    return {path.name: workflow(path) for path in sorted((rendered / "github").iterdir())}


def jobs(workflows: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each job with `file:job`."""
    for name, found in workflows.items():
        yield from ((f"{name}:{key}", job) for key, job in found["jobs"].items())


def steps(workflows: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each step with the job it belongs to."""
    for name, job in jobs(workflows):
        yield from ((name, step) for step in job.get("steps", []))


def test_pinned(workflows: dict[str, dict[str, Any]], rendered: Path) -> None:
    """Each action is named by a commit, with its version beside it."""
    used = [line.strip() for path in (rendered / "github").iterdir() for line in path.read_text().splitlines()]
    foreign = [line for line in used if re.match(r"-? ?uses: [^$]", line)]

    assert len(foreign) > 5
    assert [line for line in foreign if not re.search(r"@[0-9a-f]{40} # v\d", line)] == []


def test_scripts(workflows: dict[str, dict[str, Any]], shop: Path) -> None:
    """Each script of the project that a step runs is there and can be executed."""
    named = {found for _, step in steps(workflows) for found in re.findall(r"deploy/\S+\.sh", step.get("run", ""))}

    assert named
    assert [name for name in sorted(named) if not os.access(shop / name, os.X_OK)] == []


def test_calls(workflows: dict[str, dict[str, Any]]) -> None:
    """A called workflow exists, and is given exactly the inputs that it wants."""
    calls = [(name, job) for name, job in jobs(workflows) if "uses" in job]

    assert len(calls) == 2
    for name, job in calls:
        called = workflows[job["uses"].rpartition("/")[2]]
        assert set(job["with"]) == set(called["on"]["workflow_call"]["inputs"]), name


def test_outputs(workflows: dict[str, dict[str, Any]]) -> None:
    """What a job takes from another is an output there, and that job is waited for."""
    for name, job in jobs(workflows):
        others = workflows[name.partition(":")[0]]["jobs"]
        for other, output in re.findall(r"needs\.(\w+)\.outputs\.(\w+)", str(job)):
            assert output in others[other]["outputs"], name
            assert other in job["needs"], name


def test_environments(workflows: dict[str, dict[str, Any]], rendered: Path) -> None:
    """Each environment that can be deployed to has an overlay, with the namespace and host of the workflow."""
    offered = set(workflows["deploy.yml"]["on"]["workflow_dispatch"]["inputs"]["environment"]["options"])
    overlays = rendered / "kubernetes" / "overlays"
    said = {name: (overlays / name / "kustomization.yaml").read_text() for name in sorted(offered)}

    assert offered == {"staging", "production"}
    assert "namespace: shop\n" in said["production"]
    assert "namespace: shop-staging\n" in said["staging"]
    assert "ALLOWED_HOSTS=shop.example.com" in said["production"]
    assert "ALLOWED_HOSTS=staging.shop.example.com" in said["staging"]
    assert workflows["deploy.yml"]["env"]["HOST"].count("shop.example.com") == 2


def test_rights(workflows: dict[str, dict[str, Any]]) -> None:
    """No workflow may do more than read, but for the jobs that say so; every job has a time limit."""
    assert [name for name, found in workflows.items() if found["permissions"] != {"contents": "read"}] == []
    assert [name for name, job in jobs(workflows) if "uses" not in job and "timeout-minutes" not in job] == []
    kept = [step for _, step in steps(workflows) if step.get("uses", "").startswith("actions/checkout")]
    assert [step for step in kept if step["with"]["persist-credentials"] is not False] == []


def test_back(workflows: dict[str, dict[str, Any]]) -> None:
    """What fails after the rollout has begun is rolled back."""
    for name in ("deploy.yml", "deploy-ecs.yml"):
        last = workflows[name]["jobs"]["deploy"]["steps"][-1]
        assert last["name"] == "Roll back"
        assert "failure()" in last["if"]
        ids = {step.get("id") for step in workflows[name]["jobs"]["deploy"]["steps"]}
        assert set(re.findall(r"steps\.(\w+)\.", last["if"])) <= ids


def test_other(tmp_path: Path) -> None:
    """On ECS the release calls the other workflow, and on ghcr.io it needs no password of a registry."""
    project = tmp_path / "bread"
    shutil.copytree(ROOT / "tests" / "cli" / "layouts" / "factory", project)
    (project / "config").mkdir()
    (project / "config" / "production.toml").write_text(
        'DEPLOY_PLATFORM = "ecs"\nDEPLOY_IMAGE = "ghcr.io/bakery/bread"\n'
    )
    (project / "app.py").write_text(
        "from flask import Flask\nfrom flask_prod import ProdKit\napp = Flask('bread')\n"
        "ProdKit(app, only=('health', 'metrics'))\n"
    )
    render("github", to=project / ".github" / "workflows", app="app", cwd=project)
    release = workflow(project / ".github" / "workflows" / "github" / "release.yml")

    assert release["jobs"]["production"]["uses"] == "$/.github/workflows/deploy-ecs.yml"
    assert release["jobs"]["image"]["permissions"]["packages"] == "write"
    assert "REGISTRY_PASSWORD" not in str(release)


@pytest.mark.deploy
def test_schema(rendered: Path, pytestconfig: pytest.Config) -> None:
    """GitHub's schema knows every key of every workflow."""
    files = sorted((rendered / "github").iterdir())
    checker = tools.program("check-jsonschema", pytestconfig)
    done = tools.run(checker, "--builtin-schema", "vendor.github-workflows", *files)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.deploy
@pytest.mark.parametrize("of", ["shop", "project"])
def test_audit(rendered: Path, pytestconfig: pytest.Config, tmp_path: Path, of: str) -> None:
    """zizmor finds nothing, neither in the shop's workflows nor in those of this project."""
    source = rendered / "github" if of == "shop" else ROOT / ".github" / "workflows"
    shutil.copytree(source, tmp_path / ".github" / "workflows")
    done = tools.run(tools.program("zizmor", pytestconfig), "--offline", "--no-progress", ".github", cwd=tmp_path)

    assert done.returncode == 0, done.stdout
    assert "No findings to report" in done.stdout + done.stderr


class Release:
    """`release-kubernetes.sh` with a kubectl that notes what it is asked for, and renders for real."""

    def __init__(self, shop: Path, folder: Path, kubectl: str) -> None:
        self.project = folder / "shop"
        shutil.copytree(shop / "deploy", self.project / "deploy")
        self.notes = folder / "notes"
        stand_in = folder / "bin" / "kubectl"
        stand_in.parent.mkdir()
        stand_in.write_text(KUBECTL)
        stand_in.chmod(0o755)
        self._environ = {
            "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
            "NOTES": str(self.notes),
            "KUBECTL": kubectl,
            "POLL_SECONDS": "0",
        }

    def __call__(
        self, *words: str, job: str = "Complete", rollout: str = "Healthy"
    ) -> subprocess.CompletedProcess[str]:
        """Run it where jobs end as *job* and rollouts as *rollout*."""
        environ = {**self._environ, "JOB": job, "ROLLOUT": rollout}
        script = self.project / "deploy" / "scripts" / "release-kubernetes.sh"
        return subprocess.run(
            [str(script), *words], env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def asked(self) -> list[str]:
        """What kubectl was asked for, in order."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@pytest.fixture
def release(shop: Path, tmp_path: Path, pytestconfig: pytest.Config) -> Release:
    """Give the script in a copy of the shop's deployment files."""
    return Release(shop, tmp_path, tools.program("kubectl", pytestconfig))


@pytest.mark.deploy
def test_order(release: Release) -> None:
    """Settings, then the migration, then everything; it returns when the rollout has."""
    done = release("production", IMAGE)

    assert done.returncode == 0, done.stderr
    settings, migration, everything = [line for line in release.asked if line.startswith("apply")]
    assert "notin (web, worker, migrate)" in settings
    assert migration.endswith("app.kubernetes.io/component=migrate")
    assert "--selector" not in everything
    assert release.asked[0].startswith("delete --namespace=shop job shop-migrate")
    assert release.asked.index(everything) > next(n for n, line in enumerate(release.asked) if " job " in line)
    assert release.asked[-1].startswith("rollout status --namespace=shop deployment")
    assert list((release.project / "deploy/kubernetes/overlays").glob("release.*")) == []


@pytest.mark.deploy
def test_migration(release: Release) -> None:
    """A migration that fails ends it before anything that serves has changed."""
    done = release("staging", IMAGE, job="FailureTarget Failed")

    assert done.returncode == 1
    assert "The migration failed" in done.stderr
    assert [line for line in release.asked if line.startswith("apply") and "--selector" not in line] == []


@pytest.mark.deploy
def test_aborted(release: Release) -> None:
    """A canary that an analysis has aborted is a failure, told with its reason; one that is healthy is none."""
    overlay = release.project / "deploy/kubernetes/overlays/production/kustomization.yaml"
    overlay.write_text(overlay.read_text() + "\ncomponents:\n  - ../../components/rollout-canary\n")
    aborted = release("production", IMAGE, rollout="Degraded")
    healthy = release("production", IMAGE)

    assert (aborted.returncode, healthy.returncode) == (1, 0), aborted.stderr + healthy.stderr
    assert "the old version serves" in aborted.stderr


@pytest.mark.deploy
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "release-kubernetes.sh staging"),
        (("production", "registry.example.com/shop:1.0"), "has no digest"),
        (("prodcution", IMAGE), "There is no overlay prodcution; there are: development production staging"),
    ],
)
def test_refused(release: Release, words: tuple[str, ...], said: str) -> None:
    """A wrong call is refused with what is right, before anything is asked of the cluster."""
    done = release(*words)

    assert done.returncode == 64
    assert said in done.stderr
    assert release.asked == []
