"""A loopback TCP proxy that misbehaves on command (standard library only, asyncio).

    faultproxy.py serve LISTEN UPSTREAM CONTROL [--mode "latency 200"]   (ports of 127.0.0.1)
    faultproxy.py ctl   CONTROL COMMAND...                               e.g.  ctl 7001 latency 200 50

Modes act on open and new connections and can be switched at any time:
    pass                     transparent
    latency MS [JITTER_MS]   delay every chunk from upstream (pipelined: a delay, not a throttle)
    throttle BYTES_S         cap each direction of each connection
    blackhole [both|up|down] connections stay open and are accepted, bytes are swallowed;
                             with `down` the server does the work and only the reply is lost
    synhole                  reset open connections, drop new SYNs: connect() runs into its time limit
    refuse                   ECONNREFUSED for new, FIN for open connections (what kill -9 looks like)
    reset                    reset open connections; accept and reset new ones
    cut BYTES                forward BYTES from upstream per connection, then reset (a torn reply)
    corrupt P                flip one bit in each chunk from upstream with probability P (0..1)
Commands: any mode, status (JSON), kill (reset open connections, keep the mode), quit.
Bytes swallowed by blackhole are gone: after `pass` such a connection is reset, never resumed mid-stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"
MODES = {
    "pass": 0, "latency": 2, "throttle": 1, "blackhole": 1, "synhole": 0, "refuse": 0, "reset": 0,
    "cut": 1, "corrupt": 1,
}  # fmt: skip
"""Mode -> how many arguments it takes at most."""

NEED = {"latency", "throttle", "cut", "corrupt"}
"""Modes that do not work without their first argument."""

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


def reset(writer: Writer) -> None:
    """Make the coming close a RST instead of a FIN."""
    with suppress(OSError):
        option = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)


@dataclass(eq=False)
class Connection:
    """Both ends of one connection, and what happened to it."""

    writers: tuple[Writer, Writer]
    holed: bool = False
    sent: int = 0


@dataclass(eq=False)
class Mode:
    """How the proxy behaves now."""

    name: str = "pass"
    numbers: list[float] = field(default_factory=list)
    way: str = "both"

    def swallows(self, way: str) -> bool:
        """Say whether bytes going this way disappear."""
        return self.name == "blackhole" and self.way in ("both", way)

    def delay(self) -> float:
        """Return the seconds by which a chunk from upstream is late."""
        if self.name != "latency":
            return 0.0
        jitter = random.uniform(0, self.numbers[1]) if len(self.numbers) > 1 else 0.0
        return (self.numbers[0] + jitter) / 1000


def parse_mode(words: list[str]) -> Mode:
    """Return the mode that a command names; ValueError for one that makes no sense."""
    name, rest = words[0], words[1:]
    if name not in MODES or len(rest) > MODES[name] or (name in NEED and not rest):
        raise ValueError("bad mode: " + " ".join(words))
    if name == "blackhole":
        way = rest[0] if rest else "both"
        if way not in ("both", "up", "down"):
            raise ValueError("blackhole both|up|down")
        return Mode(name, way=way)

    numbers = [float(word) for word in rest]
    if any(number < 0 for number in numbers) or (name == "throttle" and numbers[0] == 0):
        raise ValueError("argument out of range")
    return Mode(name, numbers)


class Proxy:
    """Listens on one port, forwards to another, and does what its mode says."""

    def __init__(self, listen: int, upstream: int) -> None:
        self.listen = listen
        self.upstream = upstream
        self.mode = Mode()
        self.connections: set[Connection] = set()
        self.server: asyncio.Server | None = None
        self.hole: list[socket.socket] = []
        self.counts = {"accepted": 0, "up": 0, "down": 0, "swallowed": 0, "upstream_fail": 0}
        self.changed = asyncio.Event()

    async def set_mode(self, words: list[str]) -> None:
        """Switch, and do to open connections what the new mode does to them."""
        self.mode = parse_mode(words)
        name = self.mode.name
        if name in ("refuse", "reset", "synhole"):
            self.kill(abort=name != "refuse")
        elif name != "blackhole":  # streams that lost bytes are never resumed
            self.kill(only=lambda connection: connection.holed)
        await (self.close_listener() if name in ("refuse", "synhole") else self.open_listener())
        if name == "synhole":
            self.dig()
        self.changed.set()  # wakes what waits for the end of a black hole
        self.changed = asyncio.Event()

    async def open_listener(self) -> None:
        """Accept connections."""
        self.fill()
        if self.server is None:
            self.server = await asyncio.start_server(
                self.client, HOST, self.listen, reuse_address=True, backlog=512
            )

    async def close_listener(self) -> None:
        """Accept no more connections."""
        self.fill()
        if self.server is not None:
            self.server.close()
            self.server = None
            await asyncio.sleep(0)

    def dig(self) -> None:
        """Listen with a backlog of nothing that our own connections fill: the kernel drops further SYNs."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self.listen))
        listener.listen(0)
        self.hole = [listener]
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((HOST, self.listen))
            self.hole.append(filler)

    def fill(self) -> None:
        """End what `dig` began."""
        for one in self.hole:
            one.close()
        self.hole = []

    def kill(self, abort: bool = True, only: Callable[[Connection], bool] = lambda connection: True) -> None:
        """End open connections, with RST or with FIN."""
        for connection in [one for one in self.connections if only(one)]:
            for writer in connection.writers:
                if abort:
                    reset(writer)
                    writer.transport.abort()
                else:
                    writer.close()

    async def client(self, reader: Reader, writer: Writer) -> None:
        """Serve one connection until one side ends it."""
        self.counts["accepted"] += 1
        if self.mode.name == "reset":
            reset(writer)
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self.upstream)
        except OSError:
            self.counts["upstream_fail"] += 1
            reset(writer)
            writer.transport.abort()
            return
        await self.join(Connection((writer, far_writer)), reader, far_reader)

    async def join(self, connection: Connection, reader: Reader, far_reader: Reader) -> None:
        """Pump both ways."""
        self.connections.add(connection)
        writer, far_writer = connection.writers
        tasks = [
            asyncio.ensure_future(self.pump(connection, reader, far_writer, "up")),
            asyncio.ensure_future(self.pump(connection, far_reader, writer, "down")),
        ]
        try:
            with suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            self.connections.discard(connection)
            for one in connection.writers:
                one.close()

    async def pump(self, connection: Connection, reader: Reader, writer: Writer, way: str) -> None:
        """Read here and send there; a queue lies between, so that latency delays without throttling."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)

        def sender_ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception():
                for one in connection.writers:
                    one.transport.abort()

        sender = asyncio.ensure_future(self.send(connection, queue, writer, way))
        sender.add_done_callback(sender_ended)
        try:
            while True:
                data = await reader.read(65536)
                late = self.mode.delay() if way == "down" and data else 0.0
                await queue.put((time.monotonic() + late, data))
                if not data:
                    break
            await sender
        finally:
            sender.cancel()

    async def send(
        self, connection: Connection, queue: asyncio.Queue[tuple[float, bytes]], writer: Writer, way: str
    ) -> None:
        """Send what is due, as the mode at that moment has it."""
        while True:
            due, data = await queue.get()
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if self.mode.swallows(way):
                await self.swallow(connection, data)
            elif not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            elif not await self.forward(connection, writer, data, way):
                return

    async def swallow(self, connection: Connection, data: bytes) -> None:
        """Lose the bytes; the end of the stream must not leak through either."""
        connection.holed = True
        self.counts["swallowed"] += len(data)
        if not data:
            while self.mode.name == "blackhole":
                await self.changed.wait()

    async def forward(self, connection: Connection, writer: Writer, data: bytes, way: str) -> bool:
        """Pass bytes on, slowed, cut or corrupted; False when the connection ends with them."""
        name, numbers = self.mode.name, self.mode.numbers
        if name == "throttle":
            size = max(1, int(numbers[0] / 20))
            for start in range(0, len(data), size):
                piece = data[start : start + size]
                await asyncio.sleep(len(piece) / numbers[0])
                await self.emit(connection, writer, piece, way)
            return True
        if name == "cut" and way == "down":
            await self.emit(connection, writer, data[: max(0, int(numbers[0]) - connection.sent)], way)
            if connection.sent < numbers[0]:
                return True
            for one in connection.writers:
                reset(one)
                one.close()  # flushes, then resets
            return False
        if name == "corrupt" and way == "down" and random.random() < numbers[0]:
            place = random.randrange(len(data))
            data = data[:place] + bytes([data[place] ^ (1 << random.randrange(8))]) + data[place + 1 :]
        await self.emit(connection, writer, data, way)
        return True

    async def emit(self, connection: Connection, writer: Writer, data: bytes, way: str) -> None:
        """Write and count."""
        writer.write(data)
        self.counts[way] += len(data)
        if way == "down":
            connection.sent += len(data)
        await writer.drain()

    async def control(self, words: list[str]) -> dict[str, Any]:
        """Do one command and return what there is to say."""
        try:
            if words[0] == "kill":
                self.kill()
            elif words[0] not in ("status", "quit"):
                await self.set_mode(words)
        except (ValueError, OSError) as error:
            return {"ok": False, "error": str(error)}
        arguments = [self.mode.way] if self.mode.name == "blackhole" else self.mode.numbers
        return {
            "ok": True,
            "mode": self.mode.name,
            "args": arguments,
            "open": len(self.connections),
            **self.counts,
        }


async def serve(listen: int, upstream: int, control: int, mode: str) -> None:
    """Run a proxy and its control port until `quit`."""
    proxy, done = Proxy(listen, upstream), asyncio.Event()

    async def on_control(reader: Reader, writer: Writer) -> None:
        words = (await reader.readline()).decode("utf-8", "replace").split() or ["status"]
        answer = await proxy.control(words)
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()
        if words[0] == "quit":
            done.set()

    await proxy.set_mode(mode.split())
    controller = await asyncio.start_server(on_control, HOST, control)
    print(f"faultproxy {HOST}:{listen} -> {HOST}:{upstream} control {control} mode {mode}", flush=True)
    await done.wait()
    controller.close()
    proxy.kill()
    await proxy.close_listener()


def ctl(port: int, command: str, timeout: float = 5) -> dict[str, Any]:
    """Send one command to a control port and return its answer: `ctl(7001, "latency 200")`."""
    with socket.create_connection((HOST, port), timeout) as connection, connection.makefile() as answers:
        connection.sendall(command.encode() + b"\n")
        answer: dict[str, Any] = json.loads(answers.readline())
        return answer


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    for name in ("listen", "upstream", "control"):
        serving.add_argument(name, type=int)
    serving.add_argument("--mode", default="pass")
    controlling = commands.add_parser("ctl")
    controlling.add_argument("control", type=int)
    controlling.add_argument("words", nargs="+")
    arguments = parser.parse_args()

    if arguments.command == "serve":
        asyncio.run(serve(arguments.listen, arguments.upstream, arguments.control, arguments.mode))
        return 0
    answer = ctl(arguments.control, " ".join(arguments.words))
    print(json.dumps(answer))
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
