"""Secrets from HashiCorp Vault: one path or several of its key-value engine, version 2.

Read once at the start of each process, and again when settings are reloaded; what was read is kept in memory only.
`flask_prod.core.sources` loads this by name where VAULT_PATH is set.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

from flask_prod.core.errors import ConfigError, MissingExtra
from flask_prod.core.redaction import redact_text
from flask_prod.core.settings import Section, Source, read_settings
from flask_prod.core.values import Duration, Secret

logger = logging.getLogger(__name__)

_NONSENSE = (AttributeError, TypeError, ValueError)
"""What reading an answer raises that has another form than Vault's."""

SHORTEST = 5.0
"""Seconds between two attempts to renew, however short a token lives."""


class VaultSettings(Section, frozen=True, kw_only=True):
    """Where secrets lie in HashiCorp Vault, and how the service proves who it is."""

    prefix: ClassVar[str] = "VAULT_"

    path: tuple[str, ...] = ()
    """Paths in the key-value engine (version 2) whose keys are settings, the winning one first; empty: none."""

    addr: str = ""
    """The server: `https://vault.example:8200`."""

    mount: str = "secret"
    """Where the key-value engine is mounted."""

    namespace: str = ""
    """The namespace, of Vault Enterprise or HCP."""

    token: Secret = Secret("")
    """A token that may read the paths; it is renewed while the service runs, if it can be."""

    role_id: Secret = Secret("")
    """Sign in by AppRole, with VAULT_SECRET_ID."""

    secret_id: Secret = Secret("")
    """The other half of an AppRole."""

    approle_mount: str = "approle"
    """Where AppRole is mounted."""

    kubernetes_role: str = ""
    """Sign in by the pod's service account, under this role."""

    kubernetes_mount: str = "kubernetes"
    """Where Kubernetes authentication is mounted."""

    kubernetes_jwt: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    """The file of the service account's token."""

    cacert: str = ""
    """A file of certificates to trust, in PEM; empty trusts what the system trusts."""

    timeout: Duration = 3.0
    """How long one request to Vault may take."""

    refresh: Duration = 300.0
    """How often a running service looks whether the secrets changed; 0 only when settings are reloaded."""

    def problems(self) -> Iterator[str]:
        """Yield what is missing."""
        if not self.addr:
            yield "VAULT_PATH needs VAULT_ADDR: https://vault.example:8200."
        elif not self.addr.startswith(("https://", "http://")):
            yield "VAULT_ADDR must begin with https:// or http://."
        if not (self.token or self.role_id or self.kubernetes_role):
            yield "VAULT_PATH needs VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID, or VAULT_KUBERNETES_ROLE."
        if bool(self.role_id) != bool(self.secret_id):
            yield "VAULT_ROLE_ID and VAULT_SECRET_ID belong together: set both or none."
        if self.cacert and not Path(self.cacert).is_file():
            yield f"VAULT_CACERT names {self.cacert}, which is no file."
        if self.timeout <= 0:
            yield "VAULT_TIMEOUT must be more than 0."


def open_vault(sources: Sequence[Source]) -> Vault:
    """Return the Vault that *sources* name; ConfigError for settings that do not fit."""
    ours = [Source(one.name, {k: v for k, v in one.values.items() if k.startswith("VAULT_")}) for one in sources]
    return Vault(read_settings([VaultSettings], ours).section(VaultSettings))


class Vault:
    """One process's way to Vault: signs in, reads, and renews its token."""

    name = "vault"

    def __init__(self, settings: VaultSettings) -> None:
        self._settings = settings
        self._token = settings.token.reveal()
        self._known = False  # how long the token lives
        self._renew_at = float("inf")
        self._read_at = float("inf")
        self._failing = False
        self._busy: threading.Thread | None = None

    def read(self) -> dict[str, Any]:
        """Return the settings of all paths; ConfigError when Vault does not give them."""
        if not self._token:
            self._sign_in()
        elif not self._known:
            self._look_at_token()
        values: dict[str, Any] = {}
        for path in reversed(self._settings.path):
            values.update(self._with_token(partial(self._of, path), path))
        self._read_at = monotonic() + (self._settings.refresh or float("inf"))
        return values

    def tend(self, changed: Callable[[Mapping[str, Any]], None]) -> None:
        """Renew the token and read again when it is time for it, in a thread of its own: Vault may be slow."""
        due = monotonic() >= min(self._renew_at, self._read_at)
        if not due or (self._busy is not None and self._busy.is_alive()):
            return
        self._busy = threading.Thread(target=self._tend, args=(changed,), name="flask-prod-vault", daemon=True)
        self._busy.start()

    def _tend(self, changed: Callable[[Mapping[str, Any]], None]) -> None:
        try:
            if monotonic() >= self._renew_at:
                self._renew()
            if monotonic() >= self._read_at:
                changed(self.read())
        except ConfigError as error:
            self._renew_at = min(self._renew_at, monotonic() + SHORTEST)
            self._read_at = monotonic() + max(SHORTEST, min(self._settings.refresh, 60.0))
            if not self._failing:
                logger.warning("Secrets are as they were: %s", " ".join(error.problems))
            self._failing = True
        else:
            if self._failing:
                logger.warning("Vault answers again.")
            self._failing = False

    def _of(self, path: str, client: Any) -> dict[str, Any]:
        answer = client.secrets.kv.v2.read_secret_version(
            path=path, mount_point=self._settings.mount, raise_on_deleted_version=True
        )
        return {str(key).upper(): value for key, value in answer["data"]["data"].items()}

    def _with_token(self, ask: Callable[[Any], Any], what: str) -> Any:
        """Ask with the token; one that has ended is replaced once, where the service can sign in."""
        try:
            return self._ask(ask, what)
        except _Refused:
            if not self._can_sign_in:
                raise
        self._sign_in()
        return self._ask(ask, what)

    @property
    def _can_sign_in(self) -> bool:
        return bool(self._settings.role_id or self._settings.kubernetes_role)

    def _sign_in(self) -> None:
        self._token = ""
        self._token, lease = self._ask(self._log_in, "sign-in")
        self._plan(lease)

    def _log_in(self, client: Any) -> tuple[str, _Lease]:
        auth = self._prove(client)["auth"]
        return str(auth["client_token"]), _Lease.of(auth)

    def _prove(self, client: Any) -> Any:
        own = self._settings
        if own.role_id:
            return client.auth.approle.login(
                own.role_id.reveal(), own.secret_id.reveal(), use_token=False, mount_point=own.approle_mount
            )
        try:
            jwt = Path(own.kubernetes_jwt).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(
                [f"VAULT_KUBERNETES_JWT names {own.kubernetes_jwt}, which cannot be read."]
            ) from None
        return client.auth.kubernetes.login(
            own.kubernetes_role, jwt, use_token=False, mount_point=own.kubernetes_mount
        )

    def _look_at_token(self) -> None:
        self._plan(self._with_token(lambda client: _Lease.of(client.auth.token.lookup_self()["data"]), "token"))

    def _renew(self) -> None:
        try:
            self._plan(self._ask(lambda client: _Lease.of(client.auth.token.renew_self()["auth"]), "token"))
        except _Refused:
            if not self._can_sign_in:
                raise
            self._sign_in()

    def _plan(self, lease: _Lease) -> None:
        """Plan the renewal for half of the token's life; one that cannot be renewed is replaced then."""
        able = lease.renewable or self._can_sign_in
        self._known = True
        self._renew_at = monotonic() + max(SHORTEST, lease.seconds / 2) if able else float("inf")

    def _ask(self, ask: Callable[[Any], Any], what: str) -> Any:
        """Ask with a connection of its own: a process forked in between shares none."""
        try:
            import hvac  # type: ignore[import-untyped]  # it has no types of its own
            from requests.exceptions import SSLError
        except ImportError:
            raise MissingExtra("vault", "hvac", "vault") from None

        own = self._settings
        client = hvac.Client(
            url=own.addr, token=self._token, namespace=own.namespace or None, timeout=own.timeout,
            verify=own.cacert or True, allow_redirects=False,
        )  # fmt: skip
        where = redact_text(own.addr)
        # The texts of these errors are not repeated: a server may have put anything into them.
        try:
            return ask(client)
        except (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized, hvac.exceptions.InvalidRequest):
            raise _Refused(
                [f"Vault at {where} refuses the {what}: are token or role good, and their policy?"]
            ) from None
        except hvac.exceptions.InvalidPath:
            raise ConfigError(
                [f"Vault at {where} has nothing at {own.mount}/{what} (VAULT_MOUNT, VAULT_PATH)."]
            ) from None
        except SSLError:
            raise ConfigError(
                [f"Vault at {where} cannot prove who it is: VAULT_CACERT names a file of whom to trust."]
            ) from None
        except (hvac.exceptions.VaultError, OSError, LookupError, *_NONSENSE) as error:
            kind = type(error).__name__
            raise ConfigError([f"Vault at {where} (VAULT_ADDR) does not answer as it should: {kind}."]) from None
        finally:
            client.adapter.close()


@dataclass(frozen=True, slots=True)
class _Lease:
    """How long a token lives, and whether it can be renewed."""

    seconds: float
    renewable: bool

    @classmethod
    def of(cls, auth: Mapping[str, Any]) -> _Lease:
        """Read it from what Vault says of a token; 0 seconds are for ever."""
        seconds = float(auth.get("lease_duration", auth.get("ttl", 0)))
        return cls(seconds or float("inf"), bool(auth.get("renewable")))


class _Refused(ConfigError):
    """Vault does not take the token, or not for this."""
