"""What the shop counts for its owner; the kit counts requests by itself."""

from __future__ import annotations

from .extensions import prod

_orders = prod.metrics.business.counter("shop_orders_total", "Orders placed.")
_value = prod.metrics.business.histogram(
    "shop_order_value_euros", "Value of an order.", buckets=(10, 25, 50, 100, 250, 500, 1000, 2500)
)
_payments = prod.metrics.business.counter(
    "shop_payments_total", "Payments by result. The shop sells on account: each order is one.", ["result"]
)
for _result in ("accepted", "refused"):
    _payments.labels(_result)  # there as zero before the first one
_stock = prod.metrics.business.gauge(
    "shop_stock_units", "Units left, as of the last sale or delivery.", ["product"]
)


def count_order(total_cents: int) -> None:
    """Count an order, its value, and that it was put on the buyer's account."""
    _orders.inc()
    _value.observe(total_cents / 100)
    _payments.labels("accepted").inc()


def count_refusal() -> None:
    """Count a payment that was refused with the order: the cart, the stock or the carrier did not allow it."""
    _payments.labels("refused").inc()


def show_stock(slug: str, units: int) -> None:
    """Report how many units of a product are left; a shop has hundreds of such series, not millions."""
    _stock.labels(slug).set(units)
