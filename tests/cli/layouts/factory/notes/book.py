from flask import Blueprint, render_template

from notes.db import get_db

bp = Blueprint("book", __name__)


@bp.route("/")
def index():
    notes = get_db().execute("SELECT id, text FROM note").fetchall()
    return render_template("notes/index.html", notes=notes)
