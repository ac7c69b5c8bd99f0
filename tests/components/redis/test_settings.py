"""What the redis room says about settings it cannot work with."""

from __future__ import annotations

import pytest

from flask_prod.core.errors import ConfigError
from tests.apps import MakeApp

ONLY = ("redis",)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://cache:6379", "must start with redis://"),
        ("redis://:pa/hunter2@cache:6379/0", "cannot be understood"),
        ("redis://cache/0?colour=blue", "an option that redis-py refuses"),
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
