"""What the redis room says about settings it cannot work with."""

from __future__ import annotations

from typing import Any

import pytest
from redis import UnixDomainSocketConnection as UNIX

from flask_prod.components.redis import RedisSettings
from flask_prod.components.redis.address import Address, parse, shown
from flask_prod.core.errors import ConfigError
from flask_prod.core.values import SecretUrl
from tests.apps import MakeApp

ONLY = ("redis",)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://cache:6379", "must start with redis://"),
        ("redis://:pa/hunter2@cache:6379/0", "cannot be understood"),
        ("redis://cache/0?colour=blue", "an option that redis-py refuses"),
        ("redis+sentinel://a:1,b:2", "host:26379,host:26379/service/0"),
        ("redis+sentinel://:pa/hunter2@a:1/shop", "percent-encoded"),
        ("redis+sentinel://:hunter2@a:b:c/shop", "percent-encoded"),
        ("redis+sentinel://a:99999/shop", "cannot be understood"),
        ("redis+cluster://a,b/3", "redis+cluster://:password@host:6379,host:6379"),
        ("redis+cluster://:hunter2@a?colour=blue", "an option that redis-py refuses"),
        ("redis+unknown://a", "must start with redis://"),
    ],
)
def test_a_bad_address_is_explained_and_never_shown(make_app: MakeApp, url: str, said: str) -> None:
    """The message names the key and the remedy, not the address, which may hold a password."""
    with pytest.raises(ConfigError) as caught:
        make_app(only=ONLY, REDIS_URL=url)

    assert "REDIS_URL" in str(caught.value)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_time_limit_of_nothing_is_refused(make_app: MakeApp) -> None:
    """Zero seconds would fail every call."""
    with pytest.raises(ConfigError, match="REDIS_READ_TIMEOUT must be more than 0"):
        make_app(only=ONLY, REDIS_READ_TIMEOUT=0)


def test_password_and_database_may_stand_alone(make_app: MakeApp) -> None:
    """REDIS_PASSWORD and REDIS_DB win over what the address says."""
    app = make_app(only=ONLY, REDIS_URL="redis://:old@cache/1", REDIS_PASSWORD="new", REDIS_DB=4)
    options = app.extensions["prod"].contributions["redis"].handle.client().get_connection_kwargs()

    assert (options["password"], options["db"]) == ("new", 4)


def test_valkey_addresses_work(make_app: MakeApp) -> None:
    """A Valkey speaks the same protocol under its own scheme."""
    app = make_app(only=ONLY, REDIS_URL="valkey://cache:7000/2")
    options = app.extensions["prod"].contributions["redis"].handle.client().get_connection_kwargs()

    assert (options["host"], options["port"], options["db"]) == ("cache", 7000, 2)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"REDIS_TLS_CA": "/etc/hostname"}, "REDIS_TLS_CA needs a REDIS_URL that starts with rediss://"),
        ({"REDIS_URL": "rediss://a", "REDIS_TLS_CA": "/no/where"}, "REDIS_TLS_CA must be the path of a PEM file"),
        ({"REDIS_URL": "rediss://a", "REDIS_TLS_KEY": __file__}, "REDIS_TLS_KEY needs REDIS_TLS_CERT"),
        ({"REDIS_URL": "redis+cluster://a", "REDIS_DB": 2}, "a cluster has one database"),
    ],
)
def test_settings_that_do_not_go_together(make_app: MakeApp, config: dict[str, Any], said: str) -> None:
    """What cannot work is said at the start, with what to do."""
    with pytest.raises(ConfigError, match=said):
        make_app(only=ONLY, **{"REDIS_URL": "redis://a", **config})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "redis+sentinel://u:p%40@h1:1,h2,[::1]:3/shop/2?sentinel_password=x",
            Address(
                "sentinel",
                {"username": "u", "password": "p@", "db": 2},
                (("h1", 1), ("h2", 26379), ("::1", 3)),
                "shop",
                {"password": "x"},
            ),
        ),
        ("valkey+cluster://:p@h1:1,h2", Address("cluster", {"password": "p", "db": 0}, (("h1", 1), ("h2", 6379)))),
        ("redis://h/3", Address("single", {"host": "h", "db": 3})),
        ("unix:///run/s?db=1", Address("single", {"path": "/run/s", "db": 1, "connection_class": UNIX})),
    ],
)
def test_addresses(url: str, expected: Address) -> None:
    """Hosts, service, database and credentials are read from every form of an address."""
    assert parse(url) == expected


def test_what_a_log_may_have() -> None:
    """Hosts and service are shown, user and password are not."""
    for url, said in (
        ("redis+sentinel://u:hunter2@h1:1,h2/shop?sentinel_password=hunter2", "sentinel h1:1,h2:26379 shop"),
        ("redis+cluster://:hunter2@h1:1", "cluster h1:1"),
        ("redis://:hunter2@h1:1/0", "redis://***@h1:1/0"),
    ):
        assert shown(RedisSettings(url=SecretUrl(url))) == said
