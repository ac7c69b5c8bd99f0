"""More jobs for the tests: those that the desk, schedules and people's orders are tried on."""

from __future__ import annotations

import enum
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from flask_prod import ProdKit

shop = ProdKit(only=("jobs",))


class Colour(enum.Enum):
    RED = "red"
    BLUE = 7


seen: list[Any] = []


@shop.job(queue="paint", tags=("wall",))
def paint(colour: Colour, second: Colour | None = None, *rest: Any, layers: int = 1) -> None:
    """Paint a wall."""
    seen.append((colour, second, rest, layers))


@shop.job
def plain(
    number: int = 0,
    rate: float = 0.0,
    price: Decimal | None = None,
    day: date | None = None,
    when: datetime | None = None,
    key: UUID | None = None,
    names: list[str] | None = None,
    free: Any = None,
) -> None:
    """Take plain values."""


@shop.job(unique=True)
def sync(shop_id: int, full: bool = False) -> None:
    """Sync one shop."""


@shop.job(unique=lambda order_id, **_: order_id, unique_until="started", unique_for="1h")
def remind(order_id: int, text: str = "") -> None:
    """Remind somebody."""


@shop.job(retry=2, never=ValueError)
def fragile() -> None:
    """Fail."""
    raise ValueError("no good")


@shop.job
async def later(number: int) -> int:
    """Double a number."""
    return number * 2


@shop.job
def stepwise() -> None:
    """Say how far it is."""
    shop.jobs.progress(0.4, "half")


@shop.cron("0 3 * * *", timezone="Europe/Berlin", missed="run_once")
def report() -> None:
    """Report."""


@shop.every("10m")
def tidy() -> None:
    """Tidy up."""
