"""Images built and containers run for real, with podman and runc, as root on a machine that has apt-get.

    rig = prepared()                            Missing with its reason where that cannot be
    rig.build(dockerfile, context, tag)         seconds
    with rig.run(tag, "web", options=(...)) as container: ...

Also for other tools on the same engine: `rig.env` is the environment that they need (podman-compose, buildah).

Why each setting: crun does not start on hybrid cgroups (so runc); the default limits of open files need a
capability that a container-like machine may lack; timers of health checks need systemd (so `Container.probe`);
the OCI format drops HEALTHCHECK (so docker's). buildah 1.28 knows neither COPY --link nor RUN <<EOF.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.deploy import standin

PREFIX = "flask-prod-test-"
LABEL = "flask-prod-tests"
"""Every container has it, with the id of the process that wants it: what a killed run left is found by it."""

STACK = "io.podman.compose.project"
"""The label by which podman-compose knows a stack: PREFIX and the id of the process here."""

STAND_IN = "localhost/flask-prod-tests/python:1"
"""The tag of the base; another number when standin.py makes something else of the same packages."""

PACKAGES = {"podman": "podman", "runc": "runc", "buildah": "buildah", "iptables": "iptables"}
BESIDE = ("netavark", "aardvark-dns", "catatonit")
LONGEST = 300
"""Seconds after which a container ends whoever has forgotten it."""

ENGINE = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Missing(Exception):
    """No container can be run here; a sentence says why."""


def home() -> Path:
    """Return the folder in which the rig keeps its settings between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flask-prod-tests"


def prepared() -> Rig:
    """Return an engine that can build and run, installing and packing what is not there yet."""
    if os.geteuid() != 0:
        raise Missing("containers are run as root only")
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    rig = Rig(folder)
    with rig.alone():
        _install()
        try:
            rig.remove_abandoned()
            if not rig.has(STAND_IN):
                rig.pack_stand_in()
            with rig.run(STAND_IN, "sleep", "60") as container:
                container.exec("true")
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            raise Missing(f"podman is here and cannot run: {str(error).strip().splitlines()[-1]}") from error
    return rig


def _install() -> None:
    """Install with apt-get what is missing."""
    names = [package for name, package in PACKAGES.items() if shutil.which(name, path=_path()) is None]
    names += BESIDE if names else []
    if shutil.which("dpkg") is None:
        raise Missing("the stand-in for the Python image is packed from Debian's packages, and there is no dpkg")
    names += standin.missing()
    if not names:
        return
    if shutil.which("apt-get") is None:
        raise Missing(f"there is no apt-get to install {' '.join(names)}")
    options = ("-qq", "-oDPkg::Lock::Timeout=120", "-oDpkg::Use-Pty=0", "--no-install-recommends")
    try:
        _apt("update", "-qq")
        _apt("install", "-y", *options, *names)
    except subprocess.SubprocessError as error:
        raise Missing(f"apt-get cannot install {' '.join(names)}: {_last_words(error)}") from error


def _apt(*words: str) -> None:
    env = {**os.environ, "PATH": _path(), "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    subprocess.run(["apt-get", *words], check=True, capture_output=True, text=True, env=env, timeout=300)


def _path() -> str:
    """Return PATH with the places in which Debian keeps what root uses."""
    return os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def _last_words(error: Exception) -> str:
    words = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    return ((words or "").strip() or str(error)).splitlines()[-1]


class Rig:
    """One container engine, the machine's own, with settings of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = folder / "containers.conf"
        settings.write_text(ENGINE)
        self.env: Mapping[str, str] = {
            **os.environ,
            "PATH": _path(),
            "CONTAINERS_CONF": str(settings),
            "DISABLE_HC_SYSTEMD": "true",
            "BUILDAH_FORMAT": "docker",
            "TMPDIR": "/var/tmp",  # not the tests' own, whose files are counted
        }
        self.pip = _pip_settings()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process of this machine at a time install, pack or build: the others then find it done."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def podman(
        self, *words: str | Path, check: bool = True, seconds: float = 120, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run one command of the engine; RuntimeError with what it said when it fails."""
        command = ["podman", *map(str, words)]
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=seconds, check=False, **options
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def build(
        self,
        dockerfile: Path,
        context: Path,
        tag: str,
        args: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> float:
        """Build an image from the stand-in, with this machine's package index; return how long that took."""
        # The stand-in has no apt-get, so what the true image gets from Debian is left out.
        given = {"BASE": STAND_IN, "POSTGRES_CLIENT": "", **(args or {})}
        # Without layers of its own for each line: that takes a fifth of the time, and nobody needs them again.
        options = ("--layers=false", "--label", f"{LABEL}=image", *options)
        words = [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
        words += [word for volume in self.index_volumes() for word in ("--volume", volume)]
        began = time.monotonic()
        always = ("--pull=never", "--network=host", "--tag", tag, "--file", str(dockerfile))
        with self.building():
            self.podman("build", *always, *words, *options, context, seconds=600)
        return time.monotonic() - began

    def has(self, image: str) -> bool:
        """Tell whether there is such an image."""
        return self.podman("image", "exists", image, check=False).returncode == 0

    def run(self, image: str, *command: str, options: Sequence[str] = ()) -> Container:
        """Start a container in the background; it is removed by `with`, by `remove`, or by its own time limit."""
        name = f"{PREFIX}{os.getpid()}-{time.monotonic_ns()}"
        self.podman(
            "run", "--detach", "--name", name, "--label", f"{LABEL}={os.getpid()}", "--timeout", str(LONGEST),
            "--pull=never", *options, image, *command,
        )  # fmt: skip
        return Container(self, name)

    def once(
        self, image: str, *command: str, options: Sequence[str] = (), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end and remove it."""
        label = f"{LABEL}={os.getpid()}"
        return self.podman(
            "run", "--rm", "--label", label, "--timeout", str(LONGEST), "--pull=never", *options, image, *command,
            check=check,
        )  # fmt: skip

    def inspect(self, image: str) -> dict[str, Any]:
        """Return what the engine knows of an image."""
        found: dict[str, Any] = json.loads(self.podman("image", "inspect", image).stdout)[0]
        return found

    def remove_abandoned(self, ended: int = 0) -> None:
        """Remove what test runs that are no more, and that of the process *ended*, have left.

        Containers and stacks by the process that wanted them, and images that are two hours old.
        """
        form = '{{.Names}}|{{index .Labels "' + LABEL + '"}}|{{index .Labels "' + STACK + '"}}'
        for line in self.podman("ps", "--all", "--format", form).stdout.splitlines():
            name, wanted_by, stack = line.split("|")
            owner = wanted_by if wanted_by.isdigit() else _owner(stack)
            if _is_gone(owner, ended):
                self.podman("rm", "--force", "--time=0", "--volumes", name, check=False)
        for kind in ("network", "volume"):
            for name in self.podman(kind, "ls", "--quiet").stdout.split():
                if _is_gone(_owner(name), ended):
                    self.podman(kind, "rm", "--force", name, check=False)
        self._remove_working_containers()
        if not ended:
            old = ("--filter", f"label={LABEL}=image", "--filter", "until=2h")
            self.podman("image", "prune", "--all", "--force", *old)

    def _remove_working_containers(self) -> None:
        """Remove what builds of our base have left that were killed: where none of ours is at work."""
        with (self.folder / "building").open("w") as building:
            try:
                fcntl.flock(building, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            form = "{{.ContainerID}} {{.ImageName}}"
            listed = self.buildah("containers", "--noheading", "--format", form).splitlines()
            ours = [line.split()[0] for line in listed if "/flask-prod-tests/" in line]
            if ours:
                self.buildah("rm", *ours)

    def buildah(self, *words: str) -> str:
        command = ["buildah", *words]
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=60, check=False
        ).stdout

    @contextmanager
    def building(self) -> Iterator[None]:
        """Say that an image is built here: what builds keep meanwhile is not swept away."""
        with (self.folder / "building").open("w") as building:
            fcntl.flock(building, fcntl.LOCK_SH)
            yield

    def pack_stand_in(self) -> None:
        """Make the base image of this machine's packages."""
        with tempfile.NamedTemporaryFile(dir=self.env["TMPDIR"], suffix=".tar") as archive:
            standin.pack(archive)
            archive.flush()
            path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            self.podman("import", "--quiet", "--change", path, archive.name, STAND_IN)

    def index_volumes(self) -> list[str]:
        """Return the mounts by which pip in a build finds packages where pip finds them on this machine."""
        lines = (f"{name} = {value}\n" for name, value in self.pip.items())
        (self.folder / "pip.conf").write_text("[global]\n" + "".join(lines))
        words = [word for value in self.pip.values() for word in value.split()]
        paths = {re.sub(r"^file://", "", word) for word in words if word.startswith(("/", "file:///"))}
        mounts = [f"{self.folder / 'pip.conf'}:/etc/pip.conf:ro"]
        return mounts + [f"{path}:{path}:ro" for path in sorted(_outermost(paths))]


def _owner(name: str) -> str:
    """Return the id of the process in the name of a stack of ours, or of a part of it; empty for all others."""
    found = re.match(rf"{PREFIX}(\d+)(?:_|$)", name)
    return found[1] if found else ""


def _is_gone(pid: str, ended: int) -> bool:
    return bool(pid) and (int(pid) == ended or not Path(f"/proc/{pid}").exists())


def _pip_settings() -> dict[str, str]:
    """Return the settings of this machine's pip, from all its files and variables, by name."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True, timeout=60
    )
    found = re.findall(r"^(?:global|install|wheel|:env:)\.([\w-]+)='(.*)'$", done.stdout, re.MULTILINE)
    return {name: value.replace("\\n", " ") for name, value in found}


def _outermost(paths: set[str]) -> Iterator[str]:
    """Yield the existing paths, for the index a folder's parent: its pages point to files beside it."""
    for path in paths:
        there = Path(path)
        if there.exists():
            yield str(there.parent if there.name == "simple" else there)


@dataclass
class Container:
    """One container that was started in the background."""

    rig: Rig
    name: str
    began: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Kill it if it runs, and remove it with its volumes."""
        self.rig.podman("rm", "--force", "--time=0", "--volumes", self.name, check=False)

    def inspect(self) -> dict[str, Any]:
        """Return what the engine knows of it."""
        found: dict[str, Any] = json.loads(self.rig.podman("container", "inspect", self.name).stdout)[0]
        return found

    @property
    def running(self) -> bool:
        """True while its first process lives."""
        return bool(self.inspect()["State"]["Running"])

    @property
    def logs(self) -> str:
        """All it has written, to either stream."""
        done = self.rig.podman("logs", self.name)
        return done.stdout + done.stderr

    @property
    def pid(self) -> int:
        """The id that its first process has on this machine."""
        return int(self.inspect()["State"]["Pid"])

    def exec(self, *command: str, check: bool = True) -> str:
        """Run a command in it and return what it prints."""
        return self.rig.podman("exec", self.name, *command, check=check).stdout

    def probe(self) -> bool:
        """Ask the image's HEALTHCHECK once."""
        return self.rig.podman("healthcheck", "run", self.name, check=False).returncode == 0

    def signal(self, name: str = "TERM") -> None:
        """Send a signal to its first process."""
        self.rig.podman("kill", "--signal", name, self.name)

    def wait(self, seconds: float = 60) -> int:
        """Return its exit code once it has ended."""
        return int(self.rig.podman("wait", "--interval=100ms", self.name, seconds=seconds).stdout)
