"""What is built, and its library imported, only when somebody uses it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Later:
    """Stands for an object until it is needed: asking for any of its attributes builds it, once per application.

    `built` is the object, None as long as nobody has used it; `build()` makes it now.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._making = threading.RLock()
        self.built: Any = None

    def build(self) -> Any:
        """Return the object; raises what building it raises, and tries again the next time."""
        if self.built is None:
            with self._making:
                if self.built is None:
                    self.built = self._make()
        return self.built

    def after_fork(self) -> None:
        """Begin anew in a child, and so does the object, if there is one."""
        self._making = threading.RLock()
        self._tell("after_fork")

    def close(self) -> None:
        """Close the object, if there is one."""
        self._tell("close")

    def _tell(self, hook: str) -> None:
        call = getattr(self.built, hook, None)
        if call is not None:
            call()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # whoever copies or inspects this does not use the object
        return getattr(self.build(), name)
