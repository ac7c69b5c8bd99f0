"""The bakery's site."""

from flask import Flask

from config import Config

from .extensions import (
    cache,
    db,
    limiter,  # per address
)


def create_app(config_class=Config):
    app = Flask(__name__)
    app.config.from_object(config_class)

    register_extensions(app)
    register_blueprints(app)
    with app.app_context():
        db.create_all()
    return app


def register_extensions(app):
    db.init_app(app)
    cache.init_app(app)
    limiter.init_app(app)


def register_blueprints(app):
    from bakery.orders import bp as orders
    from bakery.site import bp as site

    app.register_blueprint(site)
    app.register_blueprint(orders, url_prefix="/orders")
