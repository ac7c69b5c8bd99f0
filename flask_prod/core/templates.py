"""Variables in profile files: `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, and `$${` for a plain `${`.

What a variable holds is put in as it is: a secret with a `${` of its own is never expanded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_]\w*)(?::([-?])([^}]*))?\}|\$\{", re.ASCII)


class Missing(ValueError):
    """A template cannot be filled in; its text says why, without any value."""


def expand(value: Any, places: Sequence[Mapping[str, Any]]) -> Any:
    """Return *value* with each variable, at any depth, from the first of *places* that has it; Missing if none."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _filled(match, places), value) if "${" in value else value
    if isinstance(value, list):
        return [expand(item, places) for item in value]
    if isinstance(value, dict):
        return {key: expand(item, places) for key, item in value.items()}
    return value


def _filled(match: re.Match[str], places: Sequence[Mapping[str, Any]]) -> str:
    name, sign, rest = match.groups()
    if name is None:
        if match[0] == "$${":
            return "${"
        raise Missing(
            "has a ${ that is no variable: there are ${NAME}, ${NAME:-default}, ${NAME:?message} and $${"
        )

    found = next((str(place[name]) for place in places if place.get(name) is not None), None)
    if sign == "-":
        return found or rest
    if found is None or (sign == "?" and not found):
        why = f": {rest}" if rest else ""
        raise Missing(f"needs the variable {name}, which is not set{why}")
    return found
