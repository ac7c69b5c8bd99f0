"""Access and refresh tokens of the API: what they carry, who they stand for, and how they are taken back."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from flask import current_app
from flask_jwt_extended import create_access_token, create_refresh_token, get_current_user, get_jwt, jwt_required
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from flask_prod.core.values import Secret

from .extensions import jwt, prod
from .models import RevokedSession, User, now

ViewT = TypeVar("ViewT", bound=Callable[..., Any])


def token_required(
    *, optional: bool = False, refresh: bool = False, any_kind: bool = False
) -> Callable[[ViewT], ViewT]:
    """Let a view be called with an access token only; `jwt_required` of Flask-JWT-Extended, with types."""
    decorate = jwt_required(optional=optional, refresh=refresh, verify_type=not any_kind)
    return cast("Callable[[ViewT], ViewT]", decorate)


def token_user() -> User:
    """Return whom the token of this request stands for."""
    return cast("User", get_current_user())


def token_user_if_any() -> User | None:
    """Return whom the token of this request stands for, None when there is no token."""
    return cast("User | None", get_current_user())


def start_session(user: User) -> dict[str, str]:
    """Return a pair of tokens that share the id of this sign-in, by which both can be taken back."""
    until = now() + current_app.config["JWT_REFRESH_TOKEN_EXPIRES"]
    claims = {"sid": secrets.token_hex(16), "until": int(until.timestamp())}
    return {
        "access_token": create_access_token(user, additional_claims=claims),
        "refresh_token": create_refresh_token(user, additional_claims=claims),
    }


def renew_session() -> dict[str, str]:
    """Return a new access token for the sign-in that this request's token belongs to."""
    same = {name: get_jwt()[name] for name in ("sid", "until")}
    return {"access_token": create_access_token(token_user(), additional_claims=same)}


def end_session() -> None:
    """Take back all tokens of the sign-in that this request's token belongs to, and forget expired ones."""
    session = prod.db.session
    session.execute(delete(RevokedSession).where(RevokedSession.expires_at < now()))
    session.add(RevokedSession(id=get_jwt()["sid"], expires_at=datetime.fromtimestamp(get_jwt()["until"], UTC)))
    try:
        session.commit()
    except IntegrityError:  # signed out twice at once
        session.rollback()


def unauthorized(description: str) -> Unauthorized:
    """Return a 401 that says how to do better."""
    return Unauthorized(description, www_authenticate=WWWAuthenticate("bearer"))


@jwt.additional_headers_loader
def _name_of_key(_identity: str) -> dict[str, str]:
    """Write into each token which key signed it, so that one can be replaced while tokens of both are about."""
    return {"kid": Secret(current_app.config["JWT_SECRET_KEY"]).fingerprint}


@jwt.decode_key_loader
def _key_of_token(header: dict[str, Any], _claims: dict[str, Any]) -> str:
    keys: list[str] = [current_app.config["JWT_SECRET_KEY"], *current_app.config["JWT_SECRET_KEY_FALLBACKS"]]
    return next((key for key in keys if Secret(key).fingerprint == header.get("kid")), keys[0])


@jwt.user_identity_loader
def _identity(user: User) -> str:
    return str(user.id)


@jwt.user_lookup_loader
def _user_of_token(_header: dict[str, Any], claims: dict[str, Any]) -> User | None:
    user = prod.db.session.get(User, int(claims["sub"]))
    if user is not None:
        prod.set_user(user.id)
    return user


@jwt.token_in_blocklist_loader
def _is_revoked(_header: dict[str, Any], claims: dict[str, Any]) -> bool:
    return prod.db.session.get(RevokedSession, claims.get("sid", "")) is not None


# The following return exceptions: they are called by error handlers, where nobody would catch a raised one, and
# the kit draws a returned exception like any other error.


@jwt.unauthorized_loader
def _no_token(_why: str) -> Unauthorized:
    return unauthorized("Please sign in and send the access token: Authorization: Bearer <token>.")


@jwt.invalid_token_loader
def _bad_token(_why: str) -> Unauthorized:
    prod.log.security("token_refused", "A token that is not ours was sent.")
    return unauthorized("This token is not one of ours, or not of the right kind; please sign in again.")


@jwt.expired_token_loader
def _expired_token(_header: dict[str, Any], _claims: dict[str, Any]) -> Unauthorized:
    return unauthorized("This token has expired; get a new one with the refresh token, or sign in again.")


@jwt.revoked_token_loader
def _revoked_token(_header: dict[str, Any], claims: dict[str, Any]) -> Unauthorized:
    prod.log.security("token_refused", "A token was sent that was taken back.", user=claims.get("sub"))
    return unauthorized("This token was signed out; please sign in again.")


@jwt.user_lookup_error_loader
def _nobodys_token(_header: dict[str, Any], _claims: dict[str, Any]) -> Unauthorized:
    return unauthorized("The account of this token is gone; please sign up again.")
