"""The one value that is not a value."""

from __future__ import annotations

from typing import Final

MISSING: Final = object()
"""What a look-up returns for an entry that is not there; None is a value."""
