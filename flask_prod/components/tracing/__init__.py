"""Tell what a request spends its time on."""

from .component import Tracing

__all__ = ["Tracing"]
