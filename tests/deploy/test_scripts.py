"""The scripts: no finding of shellcheck, and in their order, or not at all, what they have other programs do."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.cli import ScriptInfo

from flask_prod.cli.group import prod
from flask_prod.deploy.burst import Limits, Outcome, told
from flask_prod.deploy.caller import BadAddress, Caller
from flask_prod.deploy.checked import Failed
from flask_prod.deploy.recovery import Options, measured, span
from tests.deploy.conftest import render
from tests.deploy.test_systemd import BARE
from tests.deploy.tools import program, run

STAND_IN = """#!/bin/sh
# Notes how it was called, and answers as the test wants it.
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $*" in
{answers}
esac
exit 0
"""


@pytest.fixture(scope="session")
def scripts(rendered: Path) -> Path:
    """Return the folder of the shop's scripts."""
    return rendered / "scripts"


@dataclass
class Stage:
    """A folder of programs that only note how they are called."""

    scripts: Path
    folder: Path

    def answer(
        self, *answers: str, names: tuple[str, ...] = ("kubectl", "docker", "systemctl", "shop-flask")
    ) -> None:
        """Let the programs answer: each answer is a branch of `case "PROGRAM WORDS"`."""
        (self.folder / "bin").mkdir(exist_ok=True)
        for name in names:
            path = self.folder / "bin" / name
            path.write_text(STAND_IN.format(answers="\n".join(answers)))
            path.chmod(0o755)

    def play(self, name: str, *words: str, **environ: str) -> tuple[int, list[str], str]:
        """Run a script; return its exit code, the calls it made, and what it said."""
        calls = self.folder / "calls"
        calls.write_text("")
        env = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls), "POLL_SECONDS": "0",
            "BASE": str(self.folder / "opt"), **environ,
        }  # fmt: skip
        done = subprocess.run(
            [str(self.scripts / name), *words], env=env, capture_output=True, text=True, timeout=30, check=False
        )
        return done.returncode, calls.read_text().splitlines(), done.stdout + done.stderr

    def release(self, *versions: str, current: str = "", previous: str = "") -> None:
        """Install releases on the machine."""
        for version in versions:
            path = self.folder / "opt" / "releases" / version / ".venv" / "bin" / "flask"
            path.parent.mkdir(parents=True)
            path.touch(mode=0o755)
        for name, version in (("current", current), ("previous", previous)):
            if version:
                (self.folder / "opt" / name).symlink_to(f"releases/{version}")

    def serves(self, name: str = "current") -> str:
        """Return the release that a link leads to."""
        return (self.folder / "opt" / name).readlink().name


@pytest.fixture
def stage(scripts: Path, tmp_path: Path) -> Stage:
    """Give a stage with programs that all agree."""
    found = Stage(scripts, tmp_path)
    found.answer()
    return found


@pytest.mark.deploy
def test_shellcheck(scripts: Path, rendered: Path, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """shellcheck has nothing to say of the shop's, nor of those of a small application; all can be executed."""
    found = sorted(scripts.glob("*.sh"))

    (tmp_path / "notes.py").write_text(BARE)
    render("scripts", to=tmp_path / "deploy", app="notes", cwd=tmp_path)
    small = sorted((tmp_path / "deploy" / "scripts").glob("*.sh"))
    assert len(small) < len(found)

    done = run(program("shellcheck", pytestconfig), *found, *small, rendered / "systemd" / "shop-flask")

    assert done.returncode == 0, done.stdout
    assert all(os.access(path, os.X_OK) for path in found)


@pytest.mark.deploy
def test_release_on_a_machine(stage: Stage) -> None:
    """Migrated first, by the new code; then the link, the restart, and a look at what serves."""
    stage.release("1.0", "1.1", current="1.0")

    code, calls, said = stage.play("release-systemd.sh", "1.1")

    assert code == 0, said
    assert calls[:2] == [
        "systemctl start shop-migrate@1.1.service",
        "systemctl restart shop-web.service shop-worker.service",
    ]
    assert calls[2].startswith(
        "shop-flask prod deploy verify http://127.0.0.1:8000 --host shop.example.com --version 1.1"
    )
    assert (stage.serves(), stage.serves("previous")) == ("1.1", "1.0")


@pytest.mark.deploy
def test_release_whose_migration_fails(stage: Stage) -> None:
    """Nothing else is touched: the old release serves on."""
    stage.release("1.0", "1.1", current="1.0")
    stage.answer('"systemctl start"*) exit 1 ;;')

    code, calls, _ = stage.play("release-systemd.sh", "1.1")

    assert code == 1
    assert calls == ["systemctl start shop-migrate@1.1.service"]
    assert stage.serves() == "1.0"


@pytest.mark.deploy
def test_release_that_is_not_well(stage: Stage) -> None:
    """What verification refuses is taken back at once."""
    stage.release("1.0", "1.1", current="1.0")
    stage.answer('"shop-flask prod deploy verify"*) exit 1 ;;')

    code, calls, said = stage.play("release-systemd.sh", "1.1")

    assert code == 1
    assert stage.serves() == "1.0"
    assert calls.count("systemctl restart shop-web.service shop-worker.service") == 2
    assert "releases/1.0 serves again." in said


@pytest.mark.deploy
def test_rollback_on_a_machine(stage: Stage) -> None:
    """The older code is asked whether it knows the database; then link, restart, and a look."""
    stage.release("1.0", "1.1", current="1.1", previous="1.0")

    code, calls, said = stage.play("rollback-systemd.sh")

    assert code == 0, said
    assert [call.split(" --")[0] for call in calls] == [
        "shop-flask prod db fits",
        "systemctl restart shop-web.service shop-worker.service",
        "shop-flask prod deploy verify http://127.0.0.1:8000",
    ]
    assert (stage.serves(), stage.serves("previous")) == ("1.0", "1.1")


@pytest.mark.deploy
@pytest.mark.parametrize("force", ["", "yes"])
def test_rollback_before_a_migration(stage: Stage, force: str) -> None:
    """A database that the older code does not fit is refused, unless somebody knows better."""
    stage.release("1.0", "1.1", current="1.1", previous="1.0")
    stage.answer('"shop-flask prod db fits") exit 1 ;;')

    code, calls, said = stage.play("rollback-systemd.sh", FORCE=force)

    assert code == (0 if force else 1)
    assert stage.serves() == ("1.0" if force else "1.1")
    assert len(calls) == (3 if force else 1)
    assert ("1.0 does not fit this database; nothing was done." in said) is (not force)


@pytest.mark.deploy
def test_rollback_to_nothing(stage: Stage) -> None:
    """Without an earlier release there is a sentence, and nothing is done."""
    stage.release("1.1", current="1.1")

    code, calls, said = stage.play("rollback-systemd.sh")

    assert (code, calls) == (1, [])
    assert "No release has served before this one" in said


_CLUSTER = (
    '"kubectl get --namespace=shop rollout"*) exit 1 ;;',
    '*"get --namespace=shop replicaset"*) printf "9 new\\n8 old\\n10 newest\\n" ;;',
    '*"get --namespace=shop pod shop-rollback-check"*) echo "$CHECK" ;;',
    '*"get --namespace=shop pod -l"*) echo shop-web-1 ;;',
)


@pytest.mark.deploy
@pytest.mark.parametrize("check", ["0", "1"])
def test_rollback_in_a_cluster(stage: Stage, check: str) -> None:
    """The image before is asked, in a copy of a pod, whether it fits the database; only then it serves."""
    stage.answer(*_CLUSTER)

    code, calls, said = stage.play("rollback-kubernetes.sh", "shop", CHECK=check)

    debug = next(call for call in calls if call.startswith("kubectl debug"))
    assert "--set-image=web=new" in debug
    assert debug.endswith("-- flask prod db fits")
    undone = [call for call in calls if " rollout undo " in call]
    assert code == int(check), said
    assert undone == ([] if check == "1" else [
        "kubectl rollout undo --namespace=shop deployment/shop-web",
        "kubectl rollout undo --namespace=shop deployment/shop-worker",
    ])  # fmt: skip
    assert calls[-1] == "kubectl delete --namespace=shop pod shop-rollback-check --ignore-not-found --wait=false"
    assert any("-- flask prod deploy verify http://127.0.0.1:8000" in call for call in calls) is (check == "0")


@pytest.mark.deploy
def test_rollback_of_a_canary(stage: Stage) -> None:
    """Where Argo Rollouts has the web server, it is Argo that takes it back."""
    stage.answer(*_CLUSTER[1:])

    code, calls, said = stage.play("rollback-kubernetes.sh", "shop", CHECK="0")

    assert code == 0, said
    assert "kubectl argo rollouts undo --namespace=shop shop-web" in calls
    assert "kubectl rollout undo --namespace=shop deployment/shop-web" not in calls


@pytest.mark.deploy
@pytest.mark.parametrize("known", [True, False])
def test_rollback_of_the_stack(stage: Stage, known: bool, rendered: Path) -> None:
    """The tag goes back when the older code knows the database, without the migration of an older image."""
    env = rendered / "compose" / ".env"
    env.write_text("TAG=1.1\nHTTP_PORT=80\n")
    if not known:
        stage.answer('*"flask prod db fits"*) exit 1 ;;')
    try:
        code, calls, said = stage.play("rollback-compose.sh", "1.0")
        left = env.read_text()
    finally:
        env.unlink()

    assert code == (0 if known else 1), said
    assert calls[0] == "docker compose run --rm --no-deps web flask prod db fits"
    assert ("docker compose up --detach --wait --no-deps web worker" in calls) is known
    assert left == ("TAG=1.0\nHTTP_PORT=80\n" if known else "TAG=1.1\nHTTP_PORT=80\n")


@pytest.mark.deploy
def test_words_of_the_small_scripts(stage: Stage) -> None:
    """Each small script says of itself what the commands have to know."""
    stage.answer(names=("flask",))

    stage.play("before-deployment.sh", "shop:1.1", "--json", COSIGN="--key cosign.pub")
    _, calls, _ = stage.play("before-deployment.sh", "shop:1.1", "--json", COSIGN="--key cosign.pub")
    _, verified, _ = stage.play("verify-deployment.sh", "1.1", "--no-jobs")
    _, elsewhere, _ = stage.play("verify-deployment.sh", "1.1", "https://staging.example.com")
    _, saved, _ = stage.play("backup.sh")

    assert calls == ["flask prod deploy ready --image=shop:1.1 --cosign=--key cosign.pub --json"]
    assert verified == ["flask prod deploy verify https://shop.example.com --version 1.1 --no-jobs"]
    assert elsewhere == ["flask prod deploy verify https://staging.example.com --version 1.1"]
    assert saved == ["flask prod db backup", "flask prod db verify"]


@pytest.mark.deploy
def test_backup_that_fails_is_not_proved(stage: Stage) -> None:
    """The last good backup is not shown for one that was not made."""
    stage.answer('"flask prod db backup") exit 1 ;;', names=("flask",))

    code, calls, _ = stage.play("backup.sh")

    assert (code, calls) == (1, ["flask prod db backup"])


def test_measures() -> None:
    """A recovery beyond its limits fails, whether it took too long or loses too much."""
    assert measured(12.0, 3700.0, Options()) == "RTO 12.0 s of 3 min 0 s, RPO 1 h 1 min"
    with pytest.raises(Failed, match="beyond the limit"):
        measured(181.0, 0.0, Options())
    with pytest.raises(Failed, match="beyond the limit"):
        measured(1.0, 61.0, Options(rpo=60.0))
    assert [span(one) for one in (0.44, 59.0, 61.0, 7300.0)] == ["0.4 s", "59.0 s", "1 min 1 s", "2 h 1 min"]


def test_load() -> None:
    """One slow answer of twenty may be; two may not, and no error may unless it is allowed."""
    assert "p95 10 ms" in told(Outcome([0.01] * 19 + [9.0]), Limits())
    with pytest.raises(Failed, match="1000 ms are allowed"):
        told(Outcome([0.01] * 18 + [9.0] * 2), Limits())
    with pytest.raises(Failed, match=r"0% may fail: / 500"):
        told(Outcome([0.01] * 19, ["/ 500"]), Limits())
    assert "5% errors" in told(Outcome([0.01] * 19, ["/ 500"]), Limits(errors=0.05))


@pytest.mark.parametrize("url", ["", "ftp://shop", "http://", "http://shop:port"])
def test_bad_address(url: str) -> None:
    """What is no address is refused before anything is sent."""
    with pytest.raises(BadAddress, match="is not an address"):
        Caller(url)


def test_help() -> None:
    """Every command of the group explains itself without an application that can start."""
    for command in ("ready", "verify", "drill", "recover"):
        done = CliRunner().invoke(prod, ["deploy", command, "--help"], obj=ScriptInfo())
        assert done.exit_code == 0, done.output
        assert "Examples:" in done.output
