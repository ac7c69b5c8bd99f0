"""The metrics that an application has declared itself: what a dashboard of its business is made of."""

from __future__ import annotations

from dataclasses import dataclass

from flask_prod.components.metrics.cli import APPLICATION
from flask_prod.core.kit import KitState


@dataclass(frozen=True, order=True)
class Own:
    """One metric as it was declared: `kind` is counter, gauge, histogram or summary."""

    name: str
    kind: str
    labels: tuple[str, ...]
    documentation: str

    @property
    def total(self) -> str:
        """The name under which Prometheus finds a counter, however it was declared."""
        return f"{self.name.removesuffix('_total')}_total"


def own_metrics(state: KitState) -> tuple[Own, ...]:
    """Return them by name; facts about the application (`..._info`) have nothing to plot."""
    contribution = state.contributions.get("metrics")
    if contribution is None:
        return ()
    metrics = contribution.handle
    metrics.materialise()
    rows = (row for row in metrics.instruments.rows() if row.origin == APPLICATION)
    return tuple(
        sorted(
            Own(row.name, row.kind, row.labels, row.documentation)
            for row in rows
            if not row.name.endswith("_info")
        )
    )
