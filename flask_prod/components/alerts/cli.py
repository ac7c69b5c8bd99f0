"""`flask prod alerts`: see that alerts arrive before they are needed."""

from __future__ import annotations

from functools import partial
from time import monotonic

import click

from .engine import AppAlerts
from .sender import quiet_thread

_SECONDS = 15.0

_HELP = """Send a test message by every channel of ALERTS_CHANNELS.

Exits with 1 when a channel does not take it within 15 seconds.
"""


def alerts_command(alerts: AppAlerts | None) -> click.Command:
    """Return the group for one application."""

    @click.group("alerts", short_help="Try the channels that alerts go by.")
    def group() -> None:
        """Try the channels that alerts go by."""

    @group.command("test", help=_HELP, short_help="Send a test message.")
    def test() -> None:
        if alerts is None:
            raise click.ClickException("There are no ALERTS_CHANNELS.")
        found = _try_all(alerts)
        for shown, problem in found.items():
            click.echo(f"{shown}: {problem or 'sent'}")
        if any(found.values()):
            raise click.exceptions.Exit(1)

    return group


def _try_all(alerts: AppAlerts) -> dict[str, str]:
    """Send by all channels at once; return what went wrong by channel, empty for nothing."""
    message = alerts.test_message()
    found = {channel.shown: f"no answer within {_SECONDS:g} s" for channel in alerts.sender.channels}

    def attempt(shown: str, number: int) -> None:
        found[shown] = alerts.sender.channels[number].try_once(message)

    threads = [
        quiet_thread(partial(attempt, channel.shown, number))
        for number, channel in enumerate(alerts.sender.channels)
    ]
    for thread in threads:
        thread.start()
    until = monotonic() + _SECONDS
    for thread in threads:
        thread.join(max(0.0, until - monotonic()))
    return dict(found)
