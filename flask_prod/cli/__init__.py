"""`flask prod ...`: operate a service from a terminal or a script."""

from .group import ProdGroup, main, prod

__all__ = ["ProdGroup", "main", "prod"]
