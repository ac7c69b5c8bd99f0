"""Deployment files, rendered for the user's own application: `flask prod deploy init`.

plan.py has what the files say of an application, reading.py asks it, targets.py knows what there is to render, and
templates/ how it looks. deploy/ of the repository is the rendering for the sample shop; docs/deploy.md tells how
each file is proven.
"""

from .plan import Plan
from .render import render
from .settings import DeploySettings
from .targets import TARGETS, Target

__all__ = ["TARGETS", "DeploySettings", "Plan", "Target", "render"]
