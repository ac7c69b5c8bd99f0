"""Kubernetes manifests, loaded and looked up; fitting.py tells what in them does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Pods:
    """The pods that one object makes: its name as `Deployment/shop-web`, their labels and their spec."""

    owner: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> Sequence[Mapping[str, Any]]:
        """All containers, those that come first included."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def ports(self) -> frozenset[str | int]:
        """The names and the numbers of all ports."""
        ports = [port for container in self.containers for port in container.get("ports", ())]
        return frozenset(port[key] for port in ports for key in ("name", "containerPort") if key in port)


def load(text: str) -> list[Manifest]:
    """Return the objects of one file, or of what kubectl or helm printed."""
    return [one for one in yaml.safe_load_all(text) if one]


def load_base(folder: Path) -> list[Manifest]:
    """Return what the kustomization of *folder* lists, and the ConfigMaps that it makes, without kustomize."""
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    files = [folder / name for name in said["resources"] if (folder / name).is_file()]
    made = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": one["name"]},
            "data": dict(_pairs(one, folder)),
        }
        for one in said.get("configMapGenerator", ())
    ]
    return [*(one for file in files for one in load(file.read_text())), *made]


def settings(folder: Path, name: str) -> dict[str, str]:
    """Return what the ConfigMap *name* says in the overlay *folder*, what its bases say included."""
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    values: dict[str, str] = {}
    for base in said.get("resources", ()):
        if (folder / base / "kustomization.yaml").is_file():
            values |= settings(folder / base, name)
    for one in said.get("configMapGenerator", ()):
        if one["name"] == name:
            values |= dict(_pairs(one, folder))
    return values


def _pairs(generator: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    lines = [line for name in generator.get("envs", ()) for line in (folder / name).read_text().splitlines()]
    for line in [*lines, *generator.get("literals", ())]:
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            yield name, value


def label(manifest: Manifest) -> str:
    """Return an object's kind and name: `Deployment/shop-web`."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def of(manifests: Iterable[Manifest], kind: str, name: str = "") -> list[Manifest]:
    """Return the objects of a kind, only that of *name* if it is given."""
    return [one for one in manifests if one["kind"] == kind and name in ("", one["metadata"]["name"])]


def one(manifests: Iterable[Manifest], kind: str, name: str = "") -> Manifest:
    """Return the only object of a kind and name."""
    (found,) = of(manifests, kind, name)
    return found


def pods(manifests: Iterable[Manifest]) -> list[Pods]:
    """Return the pods that all objects make, whatever kind those are."""
    return [found for manifest in manifests if (found := pods_of(manifest)) is not None]


def pods_of(manifest: Manifest) -> Pods | None:
    """Return the pods that one object makes; None if it makes none."""
    spec = manifest.get("spec") or {}
    template = (
        manifest if manifest["kind"] == "Pod" else spec.get("jobTemplate", {"spec": spec})["spec"].get("template")
    )
    if not isinstance(template, dict) or "containers" not in template.get("spec", {}):
        return None
    return Pods(label(manifest), template["metadata"].get("labels", {}), template["spec"])


def amount(quantity: str | int | float) -> float:
    """Return 0.5 for 500m and 536870912.0 for 512Mi."""
    text = str(quantity)
    unit = next((unit for unit in UNITS if text.endswith(unit)), "")
    return float(text.removesuffix(unit)) * UNITS.get(unit, 1)


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Tell whether a selector takes these labels, written as matchLabels or as plain pairs; `{}` takes all."""
    return (selector.get("matchLabels", selector) if selector else {}).items() <= labels.items()
