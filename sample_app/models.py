"""The shop's tables: plain SQLAlchemy, money in whole cents, times in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, Dialect, ForeignKey, String, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite forgets the zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Return *value* with its zone."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)  # type: ignore[no-any-return]


def now() -> datetime:
    """Return the current moment in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """What all tables of the shop share: one metadata."""


class Category(Base):
    """A shelf of the shop."""

    __tablename__ = "categories"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(40), unique=True)
    name: Mapped[str] = mapped_column(String(60))


class Product(Base):
    """Something to buy; `received` counts all units that ever came in, `stock` those still there."""

    __tablename__ = "products"
    __table_args__ = (CheckConstraint("stock >= 0", name="stock_is_never_negative"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(80), unique=True)
    name: Mapped[str] = mapped_column(String(120), index=True)
    description: Mapped[str] = mapped_column(String(500))
    price_cents: Mapped[int]
    stock: Mapped[int]
    received: Mapped[int]
    motif: Mapped[str] = mapped_column(String(20))
    hue: Mapped[int]
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id"), index=True)

    category: Mapped[Category] = relationship(lazy="joined", innerjoin=True)


class User(Base):
    """A customer, or with `is_admin` somebody who runs the shop."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str] = mapped_column(String(80))
    password_hash: Mapped[str] = mapped_column(String(255))
    is_admin: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class RevokedSession(Base):
    """A sign-in that was ended before its tokens expired; kept until they would have."""

    __tablename__ = "revoked_sessions"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class CartItem(Base):
    """A line of a cart; the owner is `user:<id>` or `guest:<token>`, so that a cart needs no row of its own."""

    __tablename__ = "cart_items"
    __table_args__ = (CheckConstraint("quantity > 0", name="quantity_is_positive"),)

    owner: Mapped[str] = mapped_column(String(45), primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"), primary_key=True)
    quantity: Mapped[int]
    added_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, index=True)
    reminded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    product: Mapped[Product] = relationship(lazy="joined", innerjoin=True)

    @property
    def total_cents(self) -> int:
        """The price of the whole line."""
        return self.quantity * self.product.price_cents


class Order(Base):
    """A purchase; `mail_sent_at` says when its mail went out."""

    __tablename__ = "orders"
    __table_args__ = (UniqueConstraint("user_id", "idempotency_key", name="one_order_per_key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    idempotency_key: Mapped[str | None] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(300), default="")
    total_cents: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    mail_sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    user: Mapped[User] = relationship()
    items: Mapped[list[OrderItem]] = relationship(back_populates="order", order_by="OrderItem.id", lazy="selectin")


class OrderItem(Base):
    """A line of an order; name and price are those of the moment of buying."""

    __tablename__ = "order_items"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"), index=True)
    name: Mapped[str] = mapped_column(String(120))
    price_cents: Mapped[int]
    quantity: Mapped[int]

    order: Mapped[Order] = relationship(back_populates="items")
