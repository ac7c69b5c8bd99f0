from flask import Blueprint

bp = Blueprint("site", __name__)

from bakery.site import routes
