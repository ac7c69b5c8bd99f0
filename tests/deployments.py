"""Redis as those have it who outgrew one server: Sentinel, a cluster, TLS; all by the one Valkey binary."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import trustme

from flask_prod.components.redis.wire import pack
from tests.servers import HOST, Server, Valkey, free_port, valkey_binary, wait_for

SERVICE = "shop"


class SentinelProcess(Server):
    """One sentinel that watches one primary."""

    def __init__(self, primary: int, quorum: int) -> None:
        super().__init__("sentinel")
        self.port = free_port()
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind {HOST}\ndir {self.folder}\ndaemonize no\n"
            f"sentinel monitor {SERVICE} {HOST} {primary} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 2000\n"
        )

    def start(self) -> Self:
        """Start, and return when it takes connections."""
        self.process.launch([valkey_binary(), str(self.folder / "sentinel.conf"), "--sentinel"])
        wait_for(self._answers, 10, "a sentinel's answer")
        return self

    def ask(self, *words: str) -> bytes:
        """Send one command by a connection of its own; return the first line of the answer."""
        with socket.create_connection((HOST, self.port), 2) as connection:
            connection.sendall(pack(*(word.encode() for word in words)))
            return connection.makefile("rb").readline().strip()

    def _answers(self) -> bool:
        with suppress(OSError):
            return self.ask("PING") == b"+PONG"
        return False


class Sentinels:
    """A primary, a replica, and three sentinels that make the one the other when it is away."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.primary = stack.enter_context(Valkey(args=["--repl-diskless-sync-delay", "0"]))
            self.replica = stack.enter_context(Valkey(args=["--replicaof", f"{HOST} {self.primary.port}"]))
            self.sentinels = [stack.enter_context(SentinelProcess(self.primary.port, 2)) for _ in range(3)]
            wait_for(self._is_ready, 20, "three sentinels that know the replica and each other")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """The address as REDIS_URL has it."""
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def fail_over(self) -> None:
        """Make the replica the primary, in order: both are there."""
        self._client(self.sentinels[0]).execute_command("SENTINEL", "FAILOVER", SERVICE)
        self.wait_for_primary(self.replica.port)

    def wait_for_primary(self, port: int) -> None:
        """Wait until all sentinels name this primary."""
        wait_for(lambda: {self._primary(one) for one in self.sentinels} == {port}, 20, "the failover")

    def _primary(self, sentinel: SentinelProcess) -> int:
        return int(self._client(sentinel).execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def _is_ready(self) -> bool:
        for sentinel in self.sentinels:
            client = self._client(sentinel)
            if len(client.execute_command("SENTINEL", "REPLICAS", SERVICE)) != 1:
                return False
            if not sentinel.ask("SENTINEL", "CKQUORUM", SERVICE).startswith(b"+OK 3"):
                return False
        replica: Any = self._client(self.replica).info("replication")
        return bool(replica["master_link_status"] == "up")

    def _client(self, server: SentinelProcess | Valkey) -> Any:
        import redis

        return redis.Redis(port=server.port)


class Cluster:
    """Three primaries that share the slots."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--databases", "1"]
        args += ["--cluster-require-full-coverage", "no", "--cluster-port"]
        with ExitStack() as stack:
            self.nodes = [stack.enter_context(Valkey(args=[*args, str(free_port())])) for _ in range(3)]
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """The address as REDIS_URL has it."""
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def node_of(self, key: str) -> Valkey:
        """Return the node that has a key, as the cluster was made."""
        import redis.crc

        slot = redis.crc.key_slot(key.encode())
        return next(node for node, (first, last) in zip(self.nodes, _SHARES, strict=True) if first <= slot <= last)

    def _join(self) -> None:
        for node, (first, last) in zip(self.nodes, _SHARES, strict=True):
            node.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        for node in self.nodes[1:]:
            bus = node.args[node.args.index("--cluster-port") + 1]
            self.nodes[0].command("CLUSTER", "MEET", HOST, str(node.port), bus)
        wait_for(lambda: all(self._knows_all(node) for node in self.nodes), 20, "a cluster of three")

    def _knows_all(self, node: Valkey) -> bool:
        import redis

        with redis.Redis(port=node.port) as client:
            state: Any = client.execute_command("CLUSTER INFO")
        return bool(state["cluster_state"] == "ok" and state["cluster_known_nodes"] == "3")


_SHARES = ((0, 5460), (5461, 10922), (10923, 16383))


class TlsFront:
    """A TLS server in front of a local port, since the embedded Valkey speaks no TLS; asks for a certificate.

    `authority` is the PEM file of who signed it; `certificate` and `key` are a client's own.
    """

    def __init__(self, upstream: int, folder: Path, host: str = HOST) -> None:
        authority = trustme.CA()
        self.upstream = upstream
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        client = authority.issue_cert("client@shop.test")
        self.certificate, self.key = folder / "client.pem", folder / "client.key"
        client.cert_chain_pems[0].write_to_path(str(self.certificate))
        client.private_key_pem.write_to_path(str(self.key))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(self._context)
        authority.configure_trust(self._context)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls-front")

    def __enter__(self) -> Self:
        self._thread.start()
        self._server: asyncio.Server = self._do(
            asyncio.start_server(self._serve, HOST, 0, ssl=self._context, ssl_shutdown_timeout=0.1)
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports close

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, self.upstream)
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.wait(
                [
                    asyncio.ensure_future(_pump(reader, far_writer)),
                    asyncio.ensure_future(_pump(far_reader, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        for one in (writer, far_writer):
            one.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.CancelledError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
