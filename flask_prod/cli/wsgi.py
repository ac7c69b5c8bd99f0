"""What gunicorn loads for `flask prod up`: the application that Flask's own commands would find."""

from __future__ import annotations

import os

from flask import Flask
from flask.cli import ScriptInfo

TARGET = f"{__name__}:load()"
"""The name gunicorn knows it by."""


def load() -> Flask:
    """Return the application that FLASK_APP names, else the one in wsgi.py or app.py."""
    return ScriptInfo(os.environ.get("FLASK_APP"), set_debug_flag=False).load_app()
