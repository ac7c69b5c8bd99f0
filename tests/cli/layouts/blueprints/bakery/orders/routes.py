from flask import jsonify

from bakery.extensions import db, limiter
from bakery.models import Order
from bakery.orders import bp


@bp.route("/")
@limiter.limit("5/minute")
def all_orders():
    return jsonify([order.bread for order in db.session.query(Order)])
