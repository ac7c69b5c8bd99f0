"""A cluster by redis-py's own engine, held to the limits of the request path.

One circuit breaker per node: when one of three primaries is away, two thirds of the keys go on and the others cost
nothing. The map of the cluster is fetched in the background: a request never waits for it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.retry import Retry

from .engine import Breaker
from .failures import AWAY, NodeAway
from .wire import pack, unpack

_PAUSE = 0.5
"""Seconds between two looks at the map of the cluster."""

_MOST_NODES = 1024
"""More primaries than a cluster may have sensibly: one thousand, says its specification."""

_BY_KEY = {b"MGET": b"GET", b"UNLINK": b"UNLINK", b"DEL": b"DEL", b"EXISTS": b"EXISTS"}
"""Commands of many keys, and what each of their keys is asked with."""

_ASKING = pack(b"ASKING")
_SCRIPTS = (b"EVAL", b"EVALSHA", b"EVAL_RO", b"EVALSHA_RO", b"FCALL", b"FCALL_RO")


class ClusterClient(RedisCluster):
    """redis-py's client of a cluster, with the methods of the lean one; connects when it is made.

    `on_node` is told the name of a node whose breaker has opened or closed.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        options: dict[str, Any],
        on_node: Callable[[str, bool], None] = lambda name, opened: None,
    ) -> None:
        self._breakers: dict[str, Breaker] = {}
        self._on_node = on_node
        self._looking = threading.Lock()
        super().__init__(
            startup_nodes=[ClusterNode(*host) for host in hosts],  # type: ignore[no-untyped-call]
            retry=Retry(NoBackoff(), 0),
            require_full_coverage=False,
            **options,
        )
        self._look_now = self.nodes_manager.initialize
        # redis-py before 7.2 notes the move, and makes it when the slot is asked for.
        manager: Any = self.nodes_manager
        self._move = getattr(manager, "move_slot", None) or manager.update_moved_exception
        # redis-py looks at the map whenever a node fails, while the caller waits.
        self.nodes_manager.initialize = self._look_soon  # type: ignore[method-assign]

    def ask(self, command: bytes) -> Any:
        """Send a packed command to the node that has its key; the same answers as the lean client's."""
        words = unpack(command)
        if words[0].upper() == b"SCAN":
            return self._scan(words)
        return _raised(self.ask_many((command,))[0])

    def ask_many(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed commands, in one round trip per node, and return their answers in order.

        MGET, UNLINK, DEL and EXISTS are split by their keys, which may be anywhere.
        """
        split = [_split(command) for command in commands]
        answers = iter(self._ask_each([part for parts, _ in split for part in parts]))
        return [join([next(answers) for _ in parts]) for parts, join in split]

    def _ask_each(self, commands: Sequence[bytes]) -> list[Any]:
        answers: list[Any] = [None] * len(commands)
        by_node: dict[str, tuple[ClusterNode, list[int]]] = {}
        for place, command in enumerate(commands):
            node = self.nodes_manager.get_node_from_slot(_slot(unpack(command)))
            by_node.setdefault(node.name, (node, []))[1].append(place)
        for node, places in by_node.values():
            found = self._guarded(node, self._exchange, node, [commands[place] for place in places])
            for place, answer in zip(places, found, strict=True):
                # MovedError is an AskError too.
                moved = isinstance(answer, redis.exceptions.AskError)
                answers[place] = self._redirected(commands[place], answer) if moved else answer
        return answers

    def forget_roles(self) -> None:
        """Look at the map of the cluster: a node is not the primary of its keys any more."""
        self._look_soon()

    def close_all(self) -> None:
        """Close the connections to every node."""
        for node in tuple(self.nodes_manager.nodes_cache.values()):
            if node.redis_connection is not None:
                node.redis_connection.connection_pool.disconnect()

    def _execute_command(self, target_node: ClusterNode, *args: Any, **kwargs: Any) -> Any:
        return self._guarded(target_node, super()._execute_command, target_node, *args, **kwargs)

    def _guarded(self, node: ClusterNode, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a call to one node behind the breaker of that node."""
        breaker = self._breakers.get(node.name) or self._make_breaker(node.name)
        if breaker.opened and not breaker.admit():
            raise NodeAway(f"{node.name} is left alone for a moment")
        began = monotonic()
        try:
            answer = call(*args, **kwargs)
        except AWAY:
            breaker.end_probe(False)
            breaker.fail(began)
            self._look_soon()
            raise
        except redis.RedisError:
            breaker.end_probe(True)  # an answer, if a bad one
            raise
        if breaker.opened:
            breaker.end_probe(True)
        elif breaker.failures:
            breaker.succeed()
        return answer

    def _make_breaker(self, name: str) -> Breaker:
        breaker = Breaker(on_change=lambda state: self._on_node(name, state != "closed"))
        return self._breakers.setdefault(name, breaker)

    def _exchange(self, node: ClusterNode, commands: Sequence[bytes]) -> list[Any]:
        """Send commands to a node, once more on a dropped connection, and return the answers with their errors."""
        try:
            return self._send(node, commands)
        except (
            redis.ConnectionError,
            OSError,
            ValueError,
        ):  # older redis-py closes what is in use, looking at the map
            return self._send(node, commands)

    def _send(self, node: ClusterNode, commands: Sequence[bytes]) -> list[Any]:
        pool = self.get_redis_connection(node).connection_pool
        connection: Any = pool.get_connection()
        try:
            connection.send_packed_command((b"".join(commands),))
            return [_answer(connection) for _ in commands]
        except BaseException:
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    def _scan(self, words: Sequence[bytes]) -> list[Any]:
        """Scan one node on; the cursor says which one, and where in it."""
        nodes = sorted(self.nodes_manager.get_nodes_by_server_type("primary"), key=_name_of)
        cursor, place = divmod(int(words[1]), _MOST_NODES)
        if place >= len(nodes):
            return [b"0", []]
        command = pack(words[0], b"%d" % cursor, *words[2:])
        answer = _raised(self._guarded(nodes[place], self._exchange, nodes[place], [command])[0])
        cursor = int(answer[0])
        if not cursor:
            place += 1
        following = cursor * _MOST_NODES + place if place < len(nodes) else 0
        return [b"%d" % following, answer[1]]

    def _redirected(self, command: bytes, error: Any) -> Any:
        """Ask the node that another named: for good when it was moved, this once while it is being moved."""
        if isinstance(error, redis.exceptions.MovedError):
            self._move(error)
            self._look_soon()
            node = self.nodes_manager.get_node_from_slot(error.slot_id)
            return self._guarded(node, self._exchange, node, [command])[0]
        asked = self.nodes_manager.get_node(host=error.host, port=error.port)
        if asked is None:
            self._look_soon()
            return error
        return self._guarded(asked, self._exchange, asked, [_ASKING, command])[1]

    def _look_soon(self, *_: Any, **__: Any) -> None:
        """Look at the map in a thread, unless one looks already."""
        if self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, name="flask-prod-redis-map", daemon=True).start()

    def _look(self) -> None:
        try:
            self._look_now()
            self._forget_gone()
        except (redis.RedisError, redis.exceptions.RedisClusterException, OSError, ValueError):
            return  # the next failure looks again
        finally:
            sleep(_PAUSE)
            self._looking.release()

    def _forget_gone(self) -> None:
        """Forget nodes that are no part of the cluster any more, so that none stays away for ever."""
        names = set(self.nodes_manager.nodes_cache)
        for name in set(self._breakers) - names:
            if self._breakers.pop(name).opened:
                self._on_node(name, False)


def _name_of(node: ClusterNode) -> str:
    return str(node.name)


def _split(command: bytes) -> tuple[list[bytes], Callable[[list[Any]], Any]]:
    """Return what a command is sent as, and what makes one answer of the answers."""
    words = unpack(command)
    alone = _BY_KEY.get(words[0].upper())
    if alone is None or len(words) < 3:
        return [command], _first
    return [pack(alone, key) for key in words[1:]], _values if alone == b"GET" else _total


def _first(answers: list[Any]) -> Any:
    return answers[0]


def _values(answers: list[Any]) -> list[Any]:
    """Return values as MGET does: nothing for a key of another type."""
    return [None if isinstance(answer, redis.ResponseError) else answer for answer in answers]


def _total(answers: list[Any]) -> Any:
    return next((answer for answer in answers if isinstance(answer, Exception)), None) or sum(answers)


def _raised(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _slot(words: Sequence[bytes]) -> int:
    """Return the slot of a command whose key comes first, or after the number of keys."""
    if words[0].upper() in _SCRIPTS:
        key = words[3] if len(words) > 3 and words[2] != b"0" else None
    else:
        key = words[1] if len(words) > 1 else None
    if key is None:
        return random.randrange(REDIS_CLUSTER_HASH_SLOTS)  # noqa: S311  # no secret
    return key_slot(key)
