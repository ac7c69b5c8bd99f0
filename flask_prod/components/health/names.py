"""Names that are ends of paths."""

from __future__ import annotations

import re

RESERVED = frozenset({"live", "ready", "startup", "groups", "history"})
"""Names that are probes of their own below HEALTH_PATH."""

_NAME = re.compile(r"[^\s/?#%=,;&\x00-\x1f\x7f]{1,64}")


def is_name(name: str) -> bool:
    """Tell whether a check or a group may be called so."""
    return _NAME.fullmatch(name) is not None and name not in RESERVED
