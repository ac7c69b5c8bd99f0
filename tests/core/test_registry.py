from __future__ import annotations

import pytest

from flask_prod import ProdKit
from flask_prod.core.errors import ConfigError, NotInstalled
from flask_prod.core.registry import BUILT_IN, AnyComponent, choose, load_component, ordered
from tests.apps import MakeApp

from .rooms import room


def order(*rooms: AnyComponent, without: tuple[str, ...] = ()) -> list[str]:
    by_name = {one.name: one for one in rooms}
    return [one.name for one in ordered([rooms[0].name], by_name.__getitem__, without)]


def test_choose() -> None:
    """`only` and `without` choose, a third party's name is added."""
    assert choose(None, (), ()) == list(BUILT_IN)
    assert choose(("cache", "redis"), (), ()) == ["redis", "cache"]
    assert "jobs" not in choose(None, ("jobs",), ())
    assert choose(None, (), ("geoip",))[-1] == "geoip"


def test_unknown_without() -> None:
    """A misspelt `without` is refused rather than ignored."""
    with pytest.raises(ConfigError, match="without names 'ratelimt'"):
        choose(None, ("ratelimt",), ())


def test_requirement_is_added_first() -> None:
    """What a component requires is installed too, and before it."""
    assert order(room("outer", requires=("inner",)), room("inner")) == ["inner", "outer"]


def test_requirement_left_out() -> None:
    """Leaving out what another one requires is refused by name."""
    with pytest.raises(ConfigError, match="outer requires inner, which is left out"):
        order(room("outer", requires=("inner",)), room("inner"), without=("inner",))


def test_room_that_leaves() -> None:
    """One that nobody misses goes with what it requires."""
    outer = room("outer", requires=("inner",))
    type(outer).leaves = True

    assert order(outer, room("inner"), without=("inner",)) == []


def test_without_database(make_app: MakeApp) -> None:
    """Without the database there are no migrations and no backups, and asking for them says so."""
    kit = ProdKit(without=("database",))
    app = make_app(kit=kit)

    assert not {"database", "migrations", "backups"} & set(app.extensions["prod"].contributions)
    with app.app_context(), pytest.raises(NotInstalled, match="backups is left out"):
        kit.get("backups")


def test_circle() -> None:
    """Components that wait for one another are named."""
    with pytest.raises(ConfigError, match="wait for one another: a, b"):
        order(room("a", requires=("b",)), room("b", requires=("a",)))


def test_unknown_component() -> None:
    """A name that nobody provides is refused with those that exist."""
    with pytest.raises(ConfigError, match=r"no component called 'geoip'; there are metrics, proxy"):
        load_component("geoip")
