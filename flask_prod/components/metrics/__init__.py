"""Metrics for Prometheus: what the exporter measures, recorded by the pass, and the application's own."""

from .component import Metrics
from .face import MetricsFace
from .settings import MetricsSettings

__all__ = ["Metrics", "MetricsFace", "MetricsSettings"]
