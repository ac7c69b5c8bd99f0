"""The tracing room: which requests are traced, their spans, and the ids that go with what they call."""

from .component import Tracing
from .engine import AppTracing
from .face import TracingFace, UserSpan
from .settings import TracingSettings

__all__ = ["AppTracing", "Tracing", "TracingFace", "TracingSettings", "UserSpan"]
