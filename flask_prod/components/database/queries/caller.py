"""Which line of the application's own code asked: not the libraries between it and the database."""

from __future__ import annotations

import sys
from functools import cache, lru_cache
from pathlib import Path
from types import FrameType

_HERE = str(Path(__file__).parents[3]) + "/"
_INSTALLED = ("/site-packages/", "/dist-packages/")
_DEEPEST = 200


def calling_line() -> str:
    """Return `shop/orders.py:12 in checkout`, empty when no line of the application is on the stack."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_DEEPEST):
        if frame is None:
            return ""
        if is_own(frame.f_code.co_filename):
            parts = frame.f_code.co_filename.replace("\\", "/").split("/")
            return f"{'/'.join(parts[-2:])}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return ""


@lru_cache(maxsize=4096)
def is_own(filename: str) -> bool:
    """Tell whether a file is the application's: neither a library, nor Python's own, nor made up."""
    path = filename.replace("\\", "/")
    if path.startswith(("<", _HERE)) or any(folder in path for folder in _INSTALLED):
        return False
    return not path.startswith(_library())


@cache
def _library() -> tuple[str, ...]:
    import sysconfig  # a megabyte, which only a slow query needs

    return tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib")})
