"""What code makes of the target `kubernetes`: rules and dashboards of the target `monitoring`, as components."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath

from flask_prod.core.errors import MissingExtra

from .alerts.files import all_groups
from .dashboards import dashboard_files
from .plan import Plan

_RULES = """apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
    app.kubernetes.io/instance: {name}
    app.kubernetes.io/component: monitoring
spec:
"""
_DASHBOARDS = """\
# Grafana's dashboards, one ConfigMap each: together they are more than `kubectl apply` takes. Grafana's sidecar
# finds them by the label.
# In an overlay:  components: [../../components/dashboards]
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component

generatorOptions:
  disableNameSuffixHash: true
  labels:
    app.kubernetes.io/name: {name}
    app.kubernetes.io/instance: {name}
    app.kubernetes.io/component: monitoring
    grafana_dashboard: "1"

configMapGenerator:
"""


def files(plan: Plan) -> Mapping[str, str]:
    """Return path -> text; no dashboards where Grafana's SDK is not installed, which makes them."""
    if "metrics" not in plan.rooms:
        return {}
    found = {"components/monitoring/rules.yaml": _rules(plan)}
    with suppress(MissingExtra):
        found.update(_dashboards(plan))
    return found


def _rules(plan: Plan) -> str:
    """Return the rules as Prometheus' own files have them, one level deeper."""
    lines = (f"  {line}" if line else "" for line in all_groups(plan).splitlines())
    return _RULES.format(name=plan.name) + "\n".join(lines) + "\n"


def _dashboards(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield the component: machines alone read this copy, so it has no line ends."""
    said = _DASHBOARDS.format(name=plan.name)
    for path, text in dashboard_files(plan).items():
        file = PurePosixPath(path)
        said += f"  - name: {plan.name}-dashboard-{file.stem}\n    files:\n      - {file.name}\n"
        yield f"components/dashboards/{file.name}", json.dumps(json.loads(text), separators=(",", ":")) + "\n"
    yield "components/dashboards/kustomization.yaml", said
