"""A Sentry client of one application, with nothing that the pass already does or that costs requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask_prod.core.errors import ConfigError
from flask_prod.core.settings import ServiceSettings

from .scrubber import Scrubber
from .settings import ErrorSettings

if TYPE_CHECKING:
    from sentry_sdk import Client

SECRETS = "flask_prod_secrets"
"""Where the hint of an event carries what its request sent that is secret."""

_QUEUE = 100
"""Reports that may wait to be sent; about 20 KB each, so a dead Sentry costs some 2 MB."""

_FLUSH_SECONDS = 2.0
"""How long the end of a process may wait for reports to leave."""


def build_client(settings: ErrorSettings, service: ServiceSettings, scrubber: Callable[[], Scrubber]) -> Client:
    """Return a client; ConfigError for an address that is none."""
    from sentry_sdk import Client
    from sentry_sdk.utils import BadDsn

    def before_send(event: Any, hint: dict[str, Any]) -> Any:
        return scrubber().scrub(event, hint.get(SECRETS, ()))

    try:
        return Client(
            dsn=settings.sentry_dsn.reveal(),
            release=f"{service.service_name}@{service.service_version}",
            environment=service.environment,
            traces_sample_rate=settings.sentry_traces_sample_rate or None,
            profiles_sample_rate=settings.sentry_profiles_sample_rate or None,
            # Flask's integration and the WSGI middleware would build two scopes per request; the logging
            # integration would make an event of every error line of an outage.
            default_integrations=False,
            auto_enabling_integrations=False,
            max_request_body_size="never",
            before_send=before_send,
            before_send_transaction=before_send,
            event_scrubber=_nothing_before(),
            shutdown_timeout=_FLUSH_SECONDS,
            transport_queue_size=_QUEUE,
            auto_session_tracking=False,
            enable_backpressure_handling=False,
            spotlight=False,
        )
    except BadDsn as error:
        raise ConfigError(["SENTRY_DSN must be an address such as https://key@host/1."]) from error


def close_client(client: Client) -> None:
    """Send what waits, for two seconds at most."""
    client.close(timeout=_FLUSH_SECONDS)


def _nothing_before() -> Any:
    """Stand in for the library's scrubber, which would hide values that ours must recognise elsewhere."""
    from sentry_sdk.scrubber import EventScrubber

    return EventScrubber(denylist=[], pii_denylist=[])
