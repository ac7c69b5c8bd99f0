"""The component `redis` as in a cluster: its own scripts and configuration, on three addresses of loopback."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import Process, valkey_binary, wait_for

HOSTS = ("127.0.77.1", "127.0.77.2", "127.0.77.3")
"""What names are in a cluster: each pod has the same two ports there, on an address of its own."""

PASSWORD = "trio-7QmC2"  # of servers that live as long as a test

_PLACE = re.compile(r"/run/redis/password|/data\b|/tmp\b")
_PROGRAMS = {
    "valkey-server": 'exec "{binary}" "$@"',
    "valkey-sentinel": 'conf=$1; shift; exec "{binary}" "$conf" --sentinel "$@"',
    "valkey-cli": 'exec "{python}" -I "{cli}" "$@"',
}
CLI = '''
"""Speaks to a server as valkey-cli does, for as much as the scripts use: -h, -p, words, REDISCLI_AUTH."""
import os, socket, sys

words, host, port = sys.argv[1:], "127.0.0.1", 6379
while words[0] in ("-h", "-p"):
    host, port = (words[1], port) if words[0] == "-h" else (host, int(words[1]))
    words = words[2:]

def send(stream, *words):
    stream.write(b"*%d\\r\\n" % len(words) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(w), w) for w in words))
    stream.flush()
    return answer(stream)

def answer(stream):
    kind, rest = stream.read(1), stream.readline().strip()
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2]
    return [answer(stream) for _ in range(int(rest))] if kind == b"*" and rest != b"-1" else rest

try:
    stream = socket.create_connection((host, port), 2).makefile("rwb")
except OSError as error:
    sys.exit(f"Could not connect to Redis at {host}:{port}: {error}")
send(stream, b"AUTH", os.environb[b"REDISCLI_AUTH"])
found = send(stream, *(word.encode() for word in words))
for line in found if isinstance(found, list) else [found or b""]:
    print(line.decode() if isinstance(line, bytes) else line)
'''


class Pod:
    """One of the three: a server and a sentinel, which share a volume."""

    def __init__(self, host: str, files: Path, folder: Path) -> None:
        self.host = host
        self.folder = folder
        config, data = folder / "config", folder / "data"
        config.mkdir(parents=True)
        data.mkdir()
        (folder / "password").write_text(PASSWORD)
        # Each pod has these places to itself; here they are below its folder, and that alone is changed.
        ours = {"/run/redis/password": folder / "password", "/data": data, "/tmp": folder}
        for file in files.iterdir():
            text = re.sub(
                r"/run/redis/password|/data\b|/tmp\b", lambda found: str(ours[found[0]]), file.read_text()
            )
            (config / file.name).write_text(text)
        self.programs = folder / "bin"
        self.programs.mkdir()
        (folder / "cli.py").write_text(CLI)
        words = {"binary": valkey_binary(), "python": sys.executable, "cli": folder / "cli.py"}
        for name, line in _PROGRAMS.items():
            (self.programs / name).write_text(f"#!/bin/sh\n{line.format(**words)}\n")
            (self.programs / name).chmod(0o755)
        self.processes = {name: Process(self._made(folder / name)) for name in ("redis", "sentinel")}

    def start(self, *names: str) -> None:
        """Start server and sentinel, or one of them."""
        for name, process in self.processes.items():
            if names and name not in names:
                continue
            process.launch(["sh", str(self.folder / "config" / f"{name}.sh"), "--bind", self.host], self.environ)

    def kill(self) -> None:
        """Lose the machine: both end at once, and nobody is told."""
        for process in self.processes.values():
            process.kill()

    def hand_over(self) -> subprocess.CompletedProcess[str]:
        """Run what the kubelet runs before it ends the server."""
        return subprocess.run(
            ["sh", str(self.folder / "config/handover.sh")],
            env=self.environ, capture_output=True, text=True, timeout=40, check=False,
        )  # fmt: skip

    @property
    def environ(self) -> dict[str, str]:
        """What the StatefulSet tells the scripts."""
        return {"PATH": f"{self.programs}:{os.environ['PATH']}", "ME": self.host, "HOSTS": " ".join(HOSTS)}

    @property
    def role(self) -> str:
        """What the server says of itself: master or slave; empty where it says nothing."""
        try:
            found: Any = self.ask("ROLE")
        except redis.RedisError:
            return ""
        return bytes(found[0]).decode()

    def ask(self, *words: str, port: int = 6379) -> Any:
        """Ask the server, or with its port the sentinel."""
        once = Retry(NoBackoff(), 0)
        with redis.Redis(self.host, port, password=PASSWORD, socket_timeout=2, protocol=2, retry=once) as client:
            return client.execute_command(*words)

    def said(self) -> str:
        """Return the end of what both have said, for a failure that is to be understood."""
        return "".join(f"{self.host} {name}: {p.stdout[-900:]}{p.stderr}\n" for name, p in self.processes.items())

    @staticmethod
    def _made(folder: Path) -> Path:
        folder.mkdir()
        return folder


class Trio:
    """All three, started together."""

    def __init__(self, files: Path, folder: Path, service: str) -> None:
        for host in HOSTS:
            for port in (6379, 26379):
                with socket.socket() as taken:
                    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    try:
                        taken.bind((host, port))
                    except OSError as error:
                        pytest.skip(f"{host}:{port} cannot be had: {error}")
        self.service = service
        self.pods: Sequence[Pod] = [Pod(host, files, folder / host) for host in HOSTS]

    def __enter__(self) -> Self:
        try:
            # In a cluster all six start at once; sentinels then look for replicas only ten seconds later.
            for pod in self.pods:
                pod.start("redis")
            wait_for(lambda: self._followers(self.pods[0]) == 2, 20, "two replicas of the first server")
            for pod in self.pods:
                pod.start("sentinel")
            wait_for(self.whole, 20, "three sentinels that know all three servers")
        except BaseException:
            print("\n".join(pod.said() for pod in self.pods))  # pytest shows it with the failure
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            pod.kill()
        shutil.rmtree(self.pods[0].folder.parent, ignore_errors=True)

    def url(self, service: str) -> str:
        """Return the address in the form that docs/deploy/components.md tells."""
        hosts = ",".join(f"{host}:26379" for host in HOSTS)
        return f"redis+sentinel://:{PASSWORD}@{hosts}/{service}/0?sentinel_password={PASSWORD}"

    def whole(self) -> bool:
        """Tell whether every sentinel sees one primary, two replicas that follow it, and two other sentinels."""
        try:
            for pod in self.pods:
                if len(pod.ask("SENTINEL", "REPLICAS", self.service, port=26379)) != 2:
                    return False
                if not bytes(pod.ask("SENTINEL", "CKQUORUM", self.service, port=26379)).startswith(b"OK 3"):
                    return False
            return self._followers(self.primary) == 2
        except redis.RedisError:
            return False

    @staticmethod
    def _followers(pod: Pod) -> int:
        """Return how many replicas of this server have caught up."""
        try:
            return len(pod.ask("ROLE")[2]) if pod.role == "master" else 0
        except redis.RedisError:
            return 0

    @property
    def primary(self) -> Pod:
        """The one whom the first sentinel that answers calls the primary."""
        for pod in self.pods:
            try:
                found: Any = pod.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service, port=26379)
            except redis.RedisError:
                continue
            return next(one for one in self.pods if one.host == bytes(found[0]).decode())
        raise redis.ConnectionError("no sentinel answers")


def seconds_until(condition: Any, limit: float, what: str) -> float:
    """Return how long it took; TimeoutError after *limit*."""
    begun = time.monotonic()
    wait_for(condition, limit, what)
    return time.monotonic() - begun
