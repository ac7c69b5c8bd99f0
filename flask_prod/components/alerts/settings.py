"""What can be set about alerts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration, Secret


class AlertSettings(Section, frozen=True, kw_only=True):
    """Who is told when too much goes wrong."""

    prefix: ClassVar[str] = "ALERTS_"

    channels: tuple[Secret, ...] = ()
    """Where alerts go: addresses as apprise takes them (`slack://...`, `mailto://...`, `json://...`)."""

    error_rate: Annotated[float, Meta(ge=0)] = 10.0
    """So many failed requests a minute, over all workers of the host, are an alert; 0 never alerts."""

    severity: Literal["warning", "error", "critical", "never"] = "error"
    """Events of the service's rooms as bad as this, or worse, are an alert: Redis away is an error."""

    reminder: Duration = 3600.0
    """How long after an alert its like is told again while it lasts; 0 never repeats the error rate's."""

    calm: Duration = 180.0
    """How long the error rate must stay under half of the limit before it counts as recovered."""

    @property
    def addresses(self) -> tuple[Secret, ...]:
        """The addresses, those put together again that have commas of their own: `mailto://...?to=a,b`."""
        texts: list[str] = []
        for channel in self.channels:
            text = channel.reveal()
            if "://" not in text and texts:
                texts[-1] += f",{text}"
            else:
                texts.append(text)
        return tuple(Secret(text) for text in texts)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with an address, by its place in the list: the text is secret."""
        for number, address in enumerate(self.addresses, 1):
            scheme = address.reveal().partition("://")[0]
            if "://" not in address.reveal() or not scheme.isascii() or not scheme.replace("+", "").isalnum():
                yield f"ALERTS_CHANNELS must hold addresses such as slack://..., which number {number} is not."
