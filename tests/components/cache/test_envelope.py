"""Entries come back as they were, and nothing else comes back at all."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from flask_prod.components.cache.entry import Entry, pack, unpack
from flask_prod.components.cache.envelope import (
    PAGE,
    Page,
    decode_page,
    decode_value,
    encode_page,
    encode_value,
)

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
keys = st.text() | st.integers() | st.just("$")
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner) | st.dictionaries(keys, inner) | st.lists(inner).map(tuple) | st.frozensets(st.text())
    ),
    max_leaves=20,
)


def round_trip(value: Any, key: str = "key") -> Any:
    opened = unpack(key, pack(key, Entry(*encode_value(value))))
    assert opened is not None
    return decode_value(opened.kind, opened.payload)


@settings(max_examples=500, deadline=None)
@given(values)
def test_values_come_back_as_they_were(value: Any) -> None:
    """A cached call returns the same value, of the same type, as the call that computed it."""
    back = round_trip(value)

    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        2**80, -(2**80), float("inf"), {1: "one", (2, 3): [4]}, {"$": "tag", "v": 1}, b"\x00\xff", {1, 2},
        datetime(2026, 11, 21, tzinfo=UTC), date(2026, 11, 21), time(12, 30), timedelta(days=-1, microseconds=5),
        Decimal("19.90"), UUID(int=7), Markup("<b>safe</b>"), [(1, {"a": {2}})],
    ],
)  # fmt: skip
def test_types_that_json_does_not_know(value: Any) -> None:
    """Prices, dates, identifiers and safe markup keep their types."""
    assert round_trip(value) == value
    assert type(round_trip(value)) is type(value)


class Colour(Enum):
    RED = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("value", [object(), Colour.RED, [Text("x")], {"a": {"b": lambda: 1}}, range(3)])
def test_other_types_are_named(value: Any) -> None:
    """What would come back as something else is refused by the name of its type."""
    with pytest.raises(TypeError, match=r"(object|Colour|Text|function|range) cannot be cached"):
        encode_value(value)


def test_value_that_contains_itself() -> None:
    """A circle is refused rather than followed."""
    circle: list[Any] = []
    circle.append(circle)

    with pytest.raises(TypeError, match="cannot be cached"):
        encode_value(circle)


@given(
    st.builds(
        Entry,
        st.sampled_from([b"j", b"t", b"p"]),
        st.binary(),
        *(st.floats(0, 1e12) for _ in range(3)),
        cost=st.floats(0, 1e6, width=32),
        tags=st.lists(st.tuples(st.text(), st.integers(0, 2**64 - 1))).map(tuple),
    )
)
def test_entries_come_back_as_they_were(entry: Entry) -> None:
    """Times, cost, tags and payload are what they were."""
    assert unpack("key", pack("key", entry)) == entry


@given(st.binary(), st.lists(st.tuples(st.text(), st.text())).map(tuple))
def test_pages_come_back_as_they_were(body: bytes, headers: tuple[tuple[str, str], ...]) -> None:
    """The body is not touched, line breaks included."""
    page = Page(200, headers, body)

    assert decode_page(encode_page(page)) == page


@given(values, st.data())
def test_damaged_bytes_are_no_entry(value: Any, data: st.DataObject) -> None:
    """Cut short or changed anywhere, an entry is not read."""
    packed = pack("key", Entry(*encode_value(value), tags=(("tag", 1),)))
    cut = data.draw(st.integers(0, len(packed) - 1))
    flip = data.draw(st.integers(0, len(packed) - 1))
    changed = packed[:flip] + bytes([packed[flip] ^ 0x55]) + packed[flip + 1 :]

    assert unpack("key", packed[:cut]) is None
    assert unpack("key", changed) is None


@pytest.mark.parametrize("data", [b"", b"FP1j00000000null", b"FP2", pickle.dumps({"a": 1}), b"!\x80\x04K\x01."])
def test_foreign_bytes_are_no_entry(data: bytes) -> None:
    """Pickles, older versions and other programs' values are not even parsed."""
    assert unpack("key", data) is None


def test_entry_belongs_to_its_key() -> None:
    """An answer to another question, as from a connection out of step, is not taken for ours."""
    assert unpack("mine", pack("yours", Entry(PAGE, b"[]"))) is None
