"""What can be wrong with a stack and no schema sees: said by looking at the parts that speak of one another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import yaml

Stack = dict[str, Any]

OF_IMAGES = {
    "database": re.compile(r"POSTGRES_\w+"),
    "grafana": re.compile(r"GF_\w+"),
}
"""Variables of the images, as their own pages name them; all others are settings of the service."""

TESTED_BY_IMAGE = frozenset({"web"})
"""Services whose health check comes with their image."""


def load(path: Path) -> Stack:
    """Return a compose file, its anchors resolved."""
    found: Stack = yaml.safe_load(path.read_text())
    return found


def wrong(stack: Stack, home: Path, settings: Set[str]) -> list[str]:
    """Return what does not fit; *home* is the folder of the file, *settings* all names the service knows."""
    found = []
    for name, service in stack["services"].items():
        for rule in (_names, _rights, _variables, _published, _neighbours, _mounts, _files):
            found += [f"{name}: {problem}" for problem in rule(name, service, stack, home, settings)]
    return sorted(found)


def _names(name: str, service: Stack, stack: Stack, home: Path, settings: Set[str]) -> Iterator[str]:
    for kind in ("networks", "secrets"):
        yield from (f"no {kind} {one}" for one in service.get(kind, ()) if one not in stack[kind])
    for other, how in service.get("depends_on", {}).items():
        if other not in stack["services"]:
            yield f"no service {other}"
        elif how["condition"] == "service_healthy" and other not in TESTED_BY_IMAGE:
            if "healthcheck" not in stack["services"][other]:
                yield f"waits for the health of {other}, which has no check"
        elif how["condition"] == "service_completed_successfully" and stack["services"][other]["restart"] != "no":
            yield f"waits for the end of {other}, which is restarted"


def _rights(name: str, service: Stack, stack: Stack, home: Path, settings: Set[str]) -> Iterator[str]:
    wanted = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
    yield from (f"{key} is {service.get(key)}" for key, value in wanted.items() if service.get(key) != value)
    yield from (f"has {key}" for key in ("cap_add", "privileged", "network_mode", "pid") if key in service)
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    yield from (f"no limit of {key}" for key in ("cpus", "memory", "pids") if key not in limits)
    if not service.get("logging", {}).get("options", {}).get("max-size"):
        yield "its log never ends"
    if not re.search(r":(v?\d+\.\d+(\.\d+)?|\$\{TAG.*\})$", service["image"]):
        yield f"{service['image']} is no version"


def _variables(name: str, service: Stack, stack: Stack, home: Path, settings: Set[str]) -> Iterator[str]:
    known = OF_IMAGES.get(name)
    for variable, value in service.get("environment", {}).items():
        if not (known.fullmatch(variable) if known else variable in settings):
            yield f"nobody reads {variable}"
        if re.search(r"SECRET|PASSWORD|TOKEN|KEY", variable) and not str(value).startswith("/run/secrets/"):
            yield f"{variable} is no file"
        if str(value).startswith("/run/secrets/") and Path(value).name not in service.get("secrets", ()):
            yield f"{variable} names a file that is not mounted"


def _published(name: str, service: Stack, stack: Stack, home: Path, settings: Set[str]) -> Iterator[str]:
    if name != "nginx" and "ports" in service:
        yield "can be reached from outside"


def _neighbours(name: str, service: Stack, stack: Stack, home: Path, settings: Set[str]) -> Iterator[str]:
    """Who stands at the door meets only web; who keeps data meets only the service."""
    for other, its in stack["services"].items():
        shared = set(service["networks"]) & set(its["networks"])
        if name == "nginx" and shared and other not in ("nginx", "web"):
            yield f"reaches {other}"
        if (
            name in ("database", "redis")
            and shared
            and its["image"].startswith("docker.io")
            and other
            not in (
                "database",
                "redis",
            )
        ):
            yield f"is reached by {other}"
    if name in ("database", "redis") and not all(
        (stack["networks"][one] or {}).get("internal") for one in service["networks"]
    ):
        yield "can call out"


def _mounts(name: str, service: Stack, stack: Stack, home: Path, settings: Set[str]) -> Iterator[str]:
    made = _made(home)
    for volume in service.get("volumes", ()):
        source, _, rest = volume.partition(":")
        if source.startswith("./secrets"):
            if Path(source).relative_to("secrets").as_posix() not in made:
                yield f"nobody makes {source}"
        elif source.startswith("."):
            if not (home / source).exists():
                yield f"there is no {source}"
            if not rest.endswith(":ro"):
                yield f"{source} can be written"
        elif source not in stack["volumes"]:
            yield f"no volume {source}"


def _files(name: str, service: Stack, stack: Stack, home: Path, settings: Set[str]) -> Iterator[str]:
    made = _made(home)
    for secret in service.get("secrets", ()):
        if secret in stack["secrets"] and stack["secrets"][secret]["file"] != f"./secrets/{secret}":
            yield f"the secret {secret} is another file"
        if secret not in made:
            yield f"nobody makes the secret {secret}"


def _made(home: Path) -> Set[str]:
    """Return the words of the script that makes secrets: the names of its files are among them."""
    return set(re.findall(r"[\w/.]+", (home / "secrets.sh").read_text())) | {"tls"}


def mebibytes(text: str) -> int:
    """Return a limit of memory in MB."""
    assert text.endswith("M"), text
    return int(text[:-1])


def limits(stack: Stack) -> Mapping[str, tuple[int, int]]:
    """Return of each service the memory of one container, and how many there are."""
    return {
        name: (mebibytes(service["deploy"]["resources"]["limits"]["memory"]), service["deploy"].get("replicas", 1))
        for name, service in stack["services"].items()
    }
