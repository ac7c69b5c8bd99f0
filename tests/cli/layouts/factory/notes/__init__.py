import os

from flask import Flask


def create_app(test_config=None):
    """Create and configure an instance of the notes application."""
    app = Flask(__name__, instance_relative_config=True)
    app.config.from_mapping(
        # a default, overridden by the instance's configuration
        SECRET_KEY="dev",
        DATABASE=os.path.join(app.instance_path, "notes.sqlite"),
    )

    if test_config is None:
        app.config.from_object("notes.config.Production")
        app.config.from_pyfile("config.py", silent=True)
    else:
        app.config.update(test_config)

    os.makedirs(app.instance_path, exist_ok=True)

    @app.route("/hello")
    def hello():
        return "Hello, World!"

    from . import db

    db.init_app(app)

    from . import book

    app.register_blueprint(book.bp)
    app.add_url_rule("/", endpoint="index")

    return app
