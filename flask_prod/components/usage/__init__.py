"""Remember who uses which route how much."""

from .component import Usage
from .face import UsageFace
from .settings import UsageSettings

__all__ = ["Usage", "UsageFace", "UsageSettings"]
