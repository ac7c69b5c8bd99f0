"""flask-prod: the production layer for Flask."""

from flask_prod.core.errors import ConfigError, MissingExtra, NotInstalled, ProdKitError, SetupFinished
from flask_prod.extension import ProdKit

__all__ = ["ConfigError", "MissingExtra", "NotInstalled", "ProdKit", "ProdKitError", "SetupFinished"]
