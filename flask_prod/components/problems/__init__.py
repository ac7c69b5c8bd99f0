"""The problems room: what an error looks like to programs and to people."""

from .component import Problems
from .engine import ProblemPages, wants_page
from .settings import ProblemSettings

__all__ = ["ProblemPages", "ProblemSettings", "Problems", "wants_page"]
