"""What helps to test an application does what it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, exc, text

from flask_prod.testing import max_queries


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Give an engine that existed before the block."""
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


def ask(engine: Engine, times: int) -> None:
    with engine.connect() as connection:
        for number in range(times):
            connection.execute(text("SELECT :number"), {"number": f"canary-{number}"})


def test_few_queries(engine: Engine) -> None:
    """A block that asks no more than it may passes, and its statements can be looked at."""
    with max_queries(3) as asked:
        ask(engine, 3)

    assert asked == ["SELECT ?"] * 3


def test_many_queries(engine: Engine) -> None:
    """One query too many fails, and says which statement came how often, without its values."""
    with pytest.raises(AssertionError) as error, max_queries(3):
        ask(engine, 4)

    assert "4 queries, and 3 may be:\n  4 x SELECT ?" in str(error.value)
    assert "selectinload" in str(error.value)
    assert "canary" not in str(error.value)


def test_own_failure_comes_first(engine: Engine) -> None:
    """A block that fails by itself fails for its own reason."""
    with pytest.raises(exc.OperationalError), max_queries(0), engine.connect() as connection:
        connection.execute(text("SELECT nothing"))


def test_nothing_is_counted_afterwards(engine: Engine) -> None:
    """After the block nobody listens."""
    with max_queries(1) as asked:
        ask(engine, 1)
    ask(engine, 5)

    assert len(asked) == 1
