"""Remember who uses which route how much."""

from .component import Usage

__all__ = ["Usage"]
