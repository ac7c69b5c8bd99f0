"""What can be set about logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import ClassVar, Literal

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class LogSettings(Section, frozen=True, kw_only=True):
    """How much is logged, in which form, and where to."""

    prefix: ClassVar[str] = "LOG_"
    live: ClassVar[tuple[str, ...]] = ("level", "slow_request")

    level: str = "INFO"
    """The least severe level that is written: DEBUG, INFO, WARNING, ERROR or CRITICAL."""

    format: Literal["json", "console"] = "json"
    """One JSON object per line, or lines for people."""

    output: str = "stdout"
    """Where lines go: stdout, stderr or the path of a file, which is opened anew when it was moved away."""

    slow_request: Duration = 1.0
    """A request that takes longer is logged as a warning; 0 never warns."""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the level."""
        if self.level.upper() not in LEVELS:
            yield f"LOG_LEVEL must be one of {', '.join(LEVELS)}, not {self.level!r}."

    @property
    def number(self) -> int:
        """The level as `logging` counts it."""
        return logging.getLevelNamesMapping()[self.level.upper()]
