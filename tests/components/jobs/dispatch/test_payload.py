from __future__ import annotations

import enum
import math
import pickle
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prod.components.jobs.dispatch.payload import JsonSerializer, Unencodable


def there_and_back(value: Any) -> Any:
    return JsonSerializer.loads(JsonSerializer.dumps(value))


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])) | st.integers(), inner)
        | st.fixed_dictionaries({"$": inner, "v": inner})
    ),
    max_leaves=10,
)


@given(VALUES)
def test_round_trip(value: Any) -> None:
    """What a job is given is what its function gets, whatever it is made of and whatever it looks like."""
    assert there_and_back(value) == value


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=2))),
        datetime(2026, 3, 1),
        date(2026, 3, 1),
        time(12, 30),
        timedelta(days=-1, microseconds=5),
        Decimal("12.340"),
        UUID(int=7),
        b"\x00\xff",
        2**70,
        math.inf,
        {"$": "datetime", "v": "not ours"},
        {1: "one"},
    ],
)
def test_types_are_kept(value: Any) -> None:
    """Types that JSON lacks come back as themselves."""
    back = there_and_back(value)
    assert (type(back), back) == (type(value), value)


def test_not_a_number() -> None:
    """NaN does not silently become null."""
    assert math.isnan(there_and_back(math.nan))


def test_tuples_become_lists() -> None:
    """Tuples come back as lists, as everywhere in JSON."""
    assert there_and_back((1, (2,))) == [1, [2]]


class Colour(enum.StrEnum):
    RED = "red"


def test_enums_of_text() -> None:
    """An enum that is text is sent as its text."""
    assert there_and_back(Colour.RED) == "red"


@pytest.mark.parametrize("value", [object(), {1, 2}, Exception("x"), lambda: None, {(1, 2): 3}])
def test_unencodable(value: Any) -> None:
    """What has no form in JSON is refused by the name of its type."""
    with pytest.raises(Unencodable, match=r"cannot be stored in a job"):
        JsonSerializer.dumps([value])


def test_a_circle() -> None:
    """A value that contains itself is refused."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(Unencodable, match="nested too deeply"):
        JsonSerializer.dumps(circle)


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("boom",))


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Bomb()),
        b"",
        b"{",
        b'{"$": "os.system", "v": "id"}',
        b'{"$": "dict"}',
        b'{"$": "dict", "v": [[[], 1]]}',
        b'{"$": "timedelta", "v": [1e999, 0, 0]}',
        b'{"$": ["datetime"], "v": 1}',
        b'{"$": "uuid", "v": 5}',
    ],
)
def test_foreign_bytes(data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes that we did not write end in one of two errors, and run nothing."""
    with pytest.raises((msgspec.DecodeError, ValueError)):
        JsonSerializer.loads(data)
    assert capsys.readouterr().out == ""


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    """No bytes at all make reading end in anything but a value or one of two errors."""
    try:
        JsonSerializer.loads(data)
    except (msgspec.DecodeError, ValueError):
        return
