"""Tell people when too much goes wrong."""

from .component import Alerts

__all__ = ["Alerts"]
