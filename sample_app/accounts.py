"""Accounts: sign-up, and for the API sign-in by tokens that can be taken back."""

from __future__ import annotations

import secrets
from functools import cache
from typing import Any

from flask import Blueprint, request
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from werkzeug.security import check_password_hash, generate_password_hash

from .cart import TOKEN_HEADER, guest_token, merge_carts, owner_of
from .extensions import prod
from .fields import Fields, Invalid, json_fields
from .models import User
from .settings import shop_settings
from .tokens import end_session, renew_session, start_session, token_required, token_user, unauthorized

api = Blueprint("accounts", __name__, url_prefix="/api/accounts")

SHORTEST_PASSWORD = 10


def sign_up(fields: Fields) -> User:
    """Make an account from `email`, `name` and `password`; Invalid when one of them will not do."""
    email = fields.email("email")
    name = fields.text("name", least=1, most=80)
    password = fields.password("password", least=SHORTEST_PASSWORD)
    fields.check()
    return create_user(email, name, password)


def create_user(email: str, name: str, password: str, *, is_admin: bool = False) -> User:
    """Store a new account; Invalid when the address has one already."""
    user = User(email=email, name=name, password_hash=hash_password(password), is_admin=is_admin)
    prod.db.session.add(user)
    try:
        prod.db.session.commit()
    except IntegrityError:
        prod.db.session.rollback()
        raise Invalid({"email": "There is an account with this address; please sign in."}) from None
    return user


def sign_in(fields: Fields) -> User:
    """Return the user whom `email` and `password` belong to, else 401.

    An unknown address costs as much time as a wrong password: the answer does not tell who has an account.
    """
    email = fields.text("email", least=1, most=254).lower()
    password = fields.password("password")
    fields.check()

    user = prod.db.session.scalar(select(User).where(User.email == email))
    known = user.password_hash if user else _nobodys_hash(shop_settings().password_method)
    if not check_password_hash(known, password) or user is None:
        # Not the address as it was typed: now and then that is the password.
        prod.log.security("sign_in_failed", user=user.id if user else None)
        raise unauthorized("This e-mail address and password do not belong together.")
    return user


def hash_password(password: str) -> str:
    """Return a salted hash of *password*."""
    return generate_password_hash(password, shop_settings().password_method)


@cache
def _nobodys_hash(method: str) -> str:
    return generate_password_hash(secrets.token_hex(16), method)


@api.post("/sign-up")
@prod.limit("auth")
def sign_up_by_api() -> tuple[dict[str, Any], int]:
    """Make an account and answer its first tokens."""
    user = sign_up(json_fields())
    return _signed_in(user), 201


@api.post("/sign-in")
@prod.limit("auth")
def sign_in_by_api() -> dict[str, Any]:
    """Answer an access token for 15 minutes and a refresh token for 30 days."""
    return _signed_in(sign_in(json_fields()))


@api.post("/refresh")
@token_required(refresh=True)
def refresh() -> dict[str, Any]:
    """Answer a new access token of the same sign-in."""
    return renew_session()


@api.post("/sign-out")
@token_required(any_kind=True)
def sign_out() -> tuple[str, int]:
    """End the sign-in that this token belongs to: its access and refresh tokens are dead from now on."""
    end_session()
    return "", 204


@api.get("/me")
@token_required()
def me() -> dict[str, Any]:
    """Answer who the token belongs to."""
    return user_json(token_user())


def user_json(user: User) -> dict[str, Any]:
    """Return what the API tells of an account."""
    return {"id": user.id, "email": user.email, "name": user.name, "is_admin": user.is_admin}


def _signed_in(user: User) -> dict[str, Any]:
    """Start a sign-in; a guest's cart comes along."""
    if TOKEN_HEADER in request.headers:
        merge_carts(owner_of(None, guest_token()), owner_of(user, ""))
    return {**start_session(user), "user": user_json(user)}
