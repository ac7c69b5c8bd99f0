"""The rules of the production check, one module for each area."""

from .catalogue import AREAS, RULES, rules_for, sums

__all__ = ["AREAS", "RULES", "rules_for", "sums"]
