"""A Sentry client of one application, with nothing that the pass already does or that costs requests."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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

_FLUSH_SECONDS = 1.5
"""How long the end of a process may wait for reports to leave; other rooms have something to send too."""

_COMPRESSION = 5
"""Of gzip: a report shrinks as well as at 9, the library's choice, in half the time."""


def check_dsn(dsn: str) -> None:
    """Refuse an address that the library would refuse, without importing it; ConfigError does not repeat it."""
    try:
        parts = urlsplit(dsn)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.username and parts.port != 0
        int(parts.path.rpartition("/")[2])
    except ValueError:
        good = False
    if not good:
        raise ConfigError(["SENTRY_DSN must be an address such as https://key@host/1."])


def build_client(settings: ErrorSettings, service: ServiceSettings, scrubber: Callable[[], Scrubber]) -> Client:
    """Return a client; its first use imports the library."""
    from sentry_sdk import Client

    from .courier import Courier

    def before_send(event: Any, hint: dict[str, Any]) -> Any:
        return scrubber().scrub(event, hint.get(SECRETS, ()))

    with warnings.catch_warnings():
        # The library is about to profile by session instead of by transaction; by request is what we promise.
        warnings.filterwarnings("ignore", "Transaction-based profiling", DeprecationWarning)
        client = Client(
            transport=Courier,
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
            _experiments={"transport_compression_level": _COMPRESSION},
        )
    if not client.options["debug"]:
        # Its handler drops what is less; the log's own would not, and each line costs.
        logging.getLogger("sentry_sdk.errors").setLevel(logging.WARNING)
    return client


def close_client(client: Client) -> None:
    """Send what waits, for a second and a half at most."""
    client.close(timeout=_FLUSH_SECONDS)


def _nothing_before() -> Any:
    """Stand in for the library's scrubber, which would hide values that ours must recognise elsewhere."""
    from sentry_sdk.scrubber import EventScrubber

    return EventScrubber(denylist=[], pii_denylist=[])
