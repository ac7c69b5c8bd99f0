"""Alerts: people are told when too much goes wrong, once per episode, by the channels they read."""

from .component import Alerts
from .settings import AlertSettings

__all__ = ["AlertSettings", "Alerts"]
