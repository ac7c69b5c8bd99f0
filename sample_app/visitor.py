"""Who looks at the storefront: a guest or a user, kept in Flask's signed session cookie."""

from __future__ import annotations

from flask import g, session
from werkzeug.local import LocalProxy

from .cart import count_units, merge_carts, new_token, owner_of
from .extensions import prod
from .models import User


class Visitor:
    """The person behind one request; asks the database only for what a page shows."""

    def __init__(self) -> None:
        self._user: User | None = None
        user_id = session.get("user")
        if user_id is not None:
            self._user = prod.db.session.get(User, user_id)
        if self._user is not None:
            prod.set_user(str(self._user.id))

    @property
    def user(self) -> User | None:
        """The signed-in user, None for a guest."""
        return self._user

    @property
    def has_session(self) -> bool:
        """True when there is anything to remember; looking for messages would touch the cookie otherwise."""
        return bool(session)

    @property
    def units(self) -> int:
        """How many units lie in the cart."""
        return count_units(self.owner) if self._user or "guest" in session else 0

    @property
    def owner(self) -> str:
        """Whose cart it is; empty for a guest who has none yet."""
        return owner_of(self._user, session.get("guest", ""))

    def owner_with_cart(self) -> str:
        """Return whose cart it is, giving a guest a token for it; only forms do this, so pages stay cacheable."""
        if self._user is None and "guest" not in session:
            session["guest"] = new_token()
        return self.owner

    def sign_in(self, user: User) -> None:
        """Begin a new session for *user*; a guest's cart comes along."""
        guest = session.get("guest")
        session.clear()  # nothing of before: an attacker may have planted it
        session["user"] = user.id
        self._user = user
        if guest:
            merge_carts(owner_of(None, guest), owner_of(user, ""))

    def sign_out(self) -> None:
        """Forget everything."""
        session.clear()
        self._user = None


def _current() -> Visitor:
    if "visitor" not in g:
        g.visitor = Visitor()
    found: Visitor = g.visitor
    return found


visitor: Visitor = LocalProxy(_current)  # type: ignore[assignment]  # behaves as what it stands for
