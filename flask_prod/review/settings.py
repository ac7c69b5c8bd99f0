"""What can be set about the production check itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from msgspec import field

from flask_prod.core.settings import Section


class CheckSettings(Section, frozen=True, kw_only=True):
    """What `flask prod check` shall not report."""

    prefix: ClassVar[str] = "CHECK_"

    silence: Mapping[str, str] = field(default_factory=dict)
    """Findings by id, each with the reason why it is right here: `P204=the database is on this host; P801=...`."""
