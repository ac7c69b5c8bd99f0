"""Print pip constraints that pin every dependency of pyproject.toml to the lowest version it allows.

`make test-lowest` installs these into an environment of its own: a lower bound is a promise, so it is tested.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

_LOWEST = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9][^,;\s]*)")


def lowest(requirements: Iterable[str]) -> Iterator[str]:
    """Yield `name==version` for each requirement that has a lower bound."""
    for requirement in requirements:
        match = _LOWEST.match(requirement.replace(" ", ""))
        if match:
            yield f"{match[1]}=={match[2]}"


def main() -> None:
    """Read pyproject.toml beside the tests and print."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(line for name, lines in extras.items() if name != "lint" for line in lines),
    ]
    sys.stdout.write("\n".join(lowest(wanted)) + "\n")


if __name__ == "__main__":
    main()
