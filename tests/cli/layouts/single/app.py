"""A guest book in one file."""
import os
import sqlite3

from flask import Flask, g, redirect, render_template, request, url_for

DATABASE = os.path.join(os.path.dirname(__file__), "guests.db")

# The application itself; settings follow below.
app = Flask(__name__)
app.config["SECRET_KEY"] = "change me"
app.config["DATABASE"] = DATABASE  # one file is enough for us


def get_db():
    if "db" not in g:
        g.db = sqlite3.connect(app.config["DATABASE"])
        g.db.execute("CREATE TABLE IF NOT EXISTS guest (name TEXT)")
    return g.db


@app.teardown_appcontext
def close_db(error):
    db = g.pop("db", None)
    if db is not None:
        db.close()


@app.route("/")
def index():
    names = [row[0] for row in get_db().execute("SELECT name FROM guest")]
    return render_template("index.html", names=names)


@app.route("/sign", methods=["POST"])
def sign():
    get_db().execute("INSERT INTO guest VALUES (?)", (request.form["name"],))
    get_db().commit()
    return redirect(url_for("index"))


if __name__ == "__main__":
    app.run(debug=True)
