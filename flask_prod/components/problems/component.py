"""Install the problems room: the renderer of errors that no handler of the user answered."""

from __future__ import annotations

from flask import Flask

from flask_prod.core.component import Component, Contribution, Installed

from .engine import ProblemPages
from .settings import ProblemSettings
from .unavailable import answer_unavailable


class Problems(Component[ProblemSettings, ProblemPages]):
    """Answer errors in the words of whoever asks: problem+json for programs, a page for people."""

    name = "problems"
    settings = ProblemSettings

    def install(self, app: Flask, settings: ProblemSettings, kit: Installed) -> Contribution[ProblemPages]:
        """Read the page once, and answer for what is away."""
        answer_unavailable(app)
        pages = ProblemPages(settings, kit.service.service_name)
        return Contribution(handle=pages, render=pages.render)
