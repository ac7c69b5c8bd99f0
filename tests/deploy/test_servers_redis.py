"""A real Valkey that starts with the rendered redis.conf, and what the service may do there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from flask_prod import ProdKit
from flask_prod.deploy.plan import Plan
from flask_prod.deploy.servers import MB
from tests.apps import MakeApp
from tests.servers import HOST, Valkey, valkey_binary, wait_for

from .test_servers_tuning import plan, said

__all__ = ["plan"]  # a fixture


class TunedValkey(Valkey):
    """A Valkey that reads a rendered redis.conf, with users of the same form as secrets.sh makes."""

    def __init__(self, conf: Path, rules: str) -> None:
        super().__init__()
        self._conf = conf
        self._users = self.folder / "users.acl"
        self._users.write_text(
            f"user default off\nuser probe on nopass +ping\nuser shop on >word {rules}\n"
            "user test on >word ~* &* +@all\n"
        )

    def start(self) -> TunedValkey:
        """Start with the file; only the addresses and places of this machine are given beside it."""
        place = {"bind": HOST, "port": self.port, "dir": self.folder, "aclfile": self._users}
        words = [word for name, value in place.items() for word in (f"--{name}", str(value))]
        self.process.launch([valkey_binary(), str(self._conf), *words])
        wait_for(lambda: self._takes(), 10, "Valkey's first answer")
        return self

    def client(self, user: str) -> redis.Redis:
        """Return a client who signs in."""
        return redis.Redis(HOST, self.port, username=user, password="word", decode_responses=True)

    def _takes(self) -> bool:
        if not self.running:
            raise RuntimeError(f"Valkey ended:\n{self.process.stdout}")
        try:
            return self.command("AUTH", "probe", "-") == b"+OK"
        except OSError:
            return False


@pytest.fixture
def tuned_valkey(rendered: Path, plan: Plan) -> Iterator[TunedValkey]:
    with TunedValkey(rendered / "servers/redis.conf", plan.redis_rules) as server:
        yield server


@pytest.mark.deploy
class TestRedis:
    def test_it_reads_the_file(self, rendered: Path, tuned_valkey: TunedValkey) -> None:
        """Valkey starts with the rendered file and says of each line what it says."""
        lines = said(rendered / "servers/redis.conf", " ")
        with tuned_valkey.client("test") as client:
            answers = {name: client.config_get(name)[name] for name in lines}
        wanted = {**lines, "maxmemory": str(384 * MB), "bind": HOST, "aclfile": answers["aclfile"]}

        assert answers == wanted

    def test_the_service_has_its_own_keys(self, tuned_valkey: TunedValkey) -> None:
        """The service writes below its own names and RQ's; other keys, and dangerous commands, are refused."""
        with tuned_valkey.client("shop") as client:
            assert client.set("shop:production:a", "1") is True
            assert client.rpush("rq:queue:shop:production:default", "1") == 1
            assert client.info("server")["run_id"]
            for command in (
                ("SET", "shop:staging:a", "1"),
                ("FLUSHALL",),
                ("CONFIG", "SET", "save", ""),
                ("KEYS", "*"),
            ):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command)

    def test_jobs_need_no_more(self, tuned_valkey: TunedValkey, make_app: MakeApp) -> None:
        """Jobs are dispatched and looked at with these rights: nothing is refused."""
        kit = ProdKit(only=("redis", "jobs"))
        url = f"redis://shop:word@{HOST}:{tuned_valkey.port}/0"
        app = make_app(kit=kit, SERVICE_NAME="shop", ENVIRONMENT="production", REDIS_URL=url)
        with app.app_context():
            kit.job()(_nothing).dispatch()
            assert kit.jobs.queue("default").count == 1

        with tuned_valkey.client("test") as client:
            assert client.acl_log() == []

    def test_a_stranger_has_nothing(self, tuned_valkey: TunedValkey) -> None:
        """Without a password there is no command, and who probes may only PING."""
        assert tuned_valkey.command("GET", "shop:production:a").startswith(b"-NOAUTH")
        with tuned_valkey.client("probe") as client:
            assert client.ping() is True
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.get("shop:production:a")


def _nothing() -> None:
    """Do nothing."""
