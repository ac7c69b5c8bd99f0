"""Equal errors in numbers."""

from __future__ import annotations

from flask_prod.components.error_tracking.storm import Storm, kind_of


def raised(kind: type[Exception]) -> Exception:
    try:
        raise kind()
    except Exception as error:
        return error


def test_storm() -> None:
    """Five at once, then one per second, which says how many were withheld; another class has its own five."""
    now = [0.0]
    storm = Storm(lambda: now[0])

    assert [storm.admit(kind_of(raised(ValueError))) for _ in range(7)] == [0] * 5 + [None] * 2
    assert storm.admit(kind_of(raised(KeyError))) == 0
    now[0] = 1.0
    assert storm.admit(kind_of(raised(ValueError))) == 2
    assert storm.admit(kind_of(raised(ValueError))) is None
    now[0] = 100.0
    assert [storm.admit(kind_of(raised(ValueError))) for _ in range(6)] == [1] + [0] * 4 + [None]


def test_bounded() -> None:
    """Classes made at run time do not fill the memory."""
    storm = Storm()
    for number in range(3000):
        storm.admit(kind_of(type(f"Error{number}", (Exception,), {})()))

    assert len(storm._buckets) <= 1000
