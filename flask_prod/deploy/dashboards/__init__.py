"""Grafana's dashboards, as data: what is shown of each room that the application has, and its own metrics."""

from __future__ import annotations

from .boards import boards
from .files import dashboard_files
from .panel import Board, Panel, Query, Row

__all__ = ["Board", "Panel", "Query", "Row", "boards", "dashboard_files"]
