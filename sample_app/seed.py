"""The goods that a new shop opens with: 200 products on eight shelves, the same every time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from .models import Category, Product, User

PRODUCTS_PER_SHELF = 25


@dataclass(frozen=True)
class Kind:
    """What a product is; `motif` names its picture in static/pictures.svg, prices are in whole euros."""

    noun: str
    motif: str
    price: tuple[int, int]
    use: str


SHELVES: dict[str, tuple[Kind, ...]] = {
    "Kitchen": (
        Kind("Mug", "mug", (12, 28), "holds a generous cup and stays cool at the handle"),
        Kind("Bowl", "bowl", (14, 36), "is deep enough for soup and wide enough for salad"),
        Kind("Teapot", "teapot", (38, 90), "pours without a drip and keeps four cups warm"),
    ),
    "Lighting": (
        Kind("Table Lamp", "lamp", (49, 140), "throws a warm, wide circle of light"),
        Kind("Candle", "candle", (9, 24), "burns for forty quiet hours"),
        Kind("Pendant", "pendant", (79, 190), "hangs over a table and does not dazzle"),
    ),
    "Living": (
        Kind("Armchair", "chair", (190, 480), "is made for the second half of a long book"),
        Kind("Cushion", "cushion", (18, 45), "has a cover that comes off and can be washed"),
        Kind("Wall Clock", "clock", (29, 95), "tells the time without a tick"),
    ),
    "Garden": (
        Kind("Planter", "plant", (16, 60), "drains well and survives the frost"),
        Kind("Watering Can", "can", (24, 58), "balances in one hand when it is full"),
        Kind("Bird House", "house", (22, 49), "opens at the back for spring cleaning"),
    ),
    "Writing": (
        Kind("Notebook", "book", (8, 22), "lies flat and takes ink without a shadow"),
        Kind("Fountain Pen", "pen", (32, 120), "starts at the first stroke"),
        Kind("Desk Tray", "tray", (19, 48), "gives loose things a place to be"),
    ),
    "Travel": (
        Kind("Backpack", "bag", (69, 170), "carries a day's things and keeps them dry"),
        Kind("Flask", "flask", (21, 46), "keeps tea hot from breakfast to the last bus"),
        Kind("Umbrella", "umbrella", (25, 62), "turns with the wind instead of against it"),
    ),
    "Sound": (
        Kind("Headphones", "headphones", (79, 290), "are light enough to be forgotten"),
        Kind("Radio", "radio", (59, 180), "has one knob for everything that matters"),
        Kind("Speaker", "speaker", (89, 320), "fills a room and stays friends with the neighbours"),
    ),
    "Bath": (
        Kind("Towel", "towel", (15, 42), "dries quickly and gets softer with the years"),
        Kind("Soap", "soap", (5, 14), "smells of little and lasts long"),
        Kind("Bath Brush", "brush", (12, 29), "reaches where hands do not"),
    ),
}

_NAMES = (
    "Alder", "Birk", "Corran", "Dune", "Elm", "Fjord", "Granna", "Heath", "Iona", "Juniper", "Kelp", "Lund",
    "Marram", "Nore", "Oslo", "Pebble", "Quay", "Rowan", "Skerry", "Tarn", "Uist", "Vik", "Wren", "Yarrow",
    "Zennor",
)  # fmt: skip
_FINISHES = ("Plain", "Night Blue", "Moss", "Chalk", "Ochre", "Slate", "Rust", "Sand")
_MAKERS = ("a small workshop by the harbour", "two sisters in the old town", "a family business in its third "
           "generation", "a cooperative on the island")  # fmt: skip

DEMO_ADMIN = "admin@example.com"
DEMO_PASSWORD = "harbour-demo"  # noqa: S105  # printed in the README; exists in development only


def products_of(shelf: str) -> Iterator[Product]:
    """Yield the products of one shelf; a name is used once on each."""
    chance = random.Random(shelf)  # noqa: S311  # the same goods on every machine, nothing secret
    for number, name in enumerate(chance.sample(_NAMES, PRODUCTS_PER_SHELF)):
        kind = SHELVES[shelf][number % len(SHELVES[shelf])]
        finish = chance.choice(_FINISHES)
        stock = chance.choice((8, 20, 40, 80, 150, 300))
        yield Product(
            slug=f"{name}-{kind.noun}-{finish}".lower().replace(" ", "-"),
            name=f"{name} {kind.noun}, {finish}",
            description=f"The {name} {kind.noun.lower()} {kind.use}. Made by {chance.choice(_MAKERS)}; "
            f"this one comes in {finish.lower()}.",
            price_cents=chance.randint(*kind.price) * 100 - chance.choice((0, 5, 10, 50)),
            stock=stock,
            received=stock,
            motif=kind.motif,
            hue=_FINISHES.index(finish),
        )


def seed(session: Session) -> int:
    """Fill the shelves of a shop that has none; return how many products were added. Commits nothing."""
    if session.scalar(select(func.count()).select_from(Category)):
        return 0
    added = 0
    for shelf in SHELVES:
        category = Category(slug=shelf.lower(), name=shelf)
        for product in products_of(shelf):
            product.category = category
            session.add(product)
            added += 1
    return added


def seed_demo_admin(session: Session, make_hash: Callable[[str], str]) -> None:
    """Add the administrator of the demo, for development only; does nothing when it is there."""
    if session.scalar(select(User.id).where(User.email == DEMO_ADMIN)) is None:
        hashed = make_hash(DEMO_PASSWORD)
        session.add(User(email=DEMO_ADMIN, name="Demo Admin", password_hash=hashed, is_admin=True))
