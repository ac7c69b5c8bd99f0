from flask import render_template

from bakery.extensions import cache
from bakery.site import bp


@bp.route("/")
@cache.cached(timeout=30)
def home():
    return render_template("home.html")


@bp.route("/health")
def health():
    return "ok"
