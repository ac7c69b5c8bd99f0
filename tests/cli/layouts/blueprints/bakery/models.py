from bakery.extensions import db


class Order(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    bread = db.Column(db.String(40), nullable=False)
