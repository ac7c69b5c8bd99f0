"""Error tracking: every unexpected error once, with its story and without its secrets, to Sentry."""

from .component import ErrorTracking
from .face import ErrorsFace
from .fallback import fallback
from .settings import ErrorSettings

__all__ = ["ErrorSettings", "ErrorTracking", "ErrorsFace", "fallback"]
