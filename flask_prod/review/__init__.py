"""Judges whether a deployment is ready for production: one small rule per finding, each with a stable id."""

from .engine import Report, review
from .rule import ERROR, INFO, WARNING, Evidence, Finding, Rule
from .subject import Subject

__all__ = ["ERROR", "INFO", "WARNING", "Evidence", "Finding", "Report", "Rule", "Subject", "review"]
