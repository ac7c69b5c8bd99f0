"""The rules of the production check, one module for each area."""

from .catalogue import AREAS, RULES, sums

__all__ = ["AREAS", "RULES", "sums"]
