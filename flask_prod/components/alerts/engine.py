"""What one application alerts of: failed requests per minute, and events of its rooms, each once per episode."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, strftime, time

from flask_prod.core.component import Event
from flask_prod.core.ports import CounterPort, GaugePort
from flask_prod.core.record import RequestRecord
from flask_prod.core.redaction import redact_text
from flask_prod.core.run_dir import Leader
from flask_prod.core.settings import ServiceSettings

from .board import Board
from .rate import Episode, Limits, Rate, judge
from .sender import Message, Sender
from .settings import AlertSettings

FAILED = "flask_prod_failed_requests"
"""The counter that the error rate is read from."""

_RATE = "rate"
_RANKS = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 4, "never": 5}
_ENDS = frozenset({"recovered", "closed", "restored", "resumed", "back"})
"""Last words of an event's name that end the episodes of its family: `prod.redis.recovered`."""

_STATES = frozenset({"changed"})
"""Last words of names that say in their severity which way it went: `prod.health.changed`."""

_EPISODE = 3600.0
"""How long an event stands for its likes where ALERTS_REMINDER says never."""

_MOST_CAUSES = 200
_SHOWN_CAUSES = 3


@dataclass(frozen=True, slots=True)
class Instruments:
    """Where failures are counted; `total` sums them over all workers, None where each counts for itself."""

    failed: CounterPort
    rate: GaugePort
    total: Callable[[str], float] | None


class AppAlerts:
    """Watches one application in one process; of several processes of a host the leader watches them all."""

    def __init__(
        self, settings: AlertSettings, service: ServiceSettings, sender: Sender, instruments: Instruments,
        folder: Callable[[], Path | None],
    ) -> None:  # fmt: skip
        self.sender = sender
        self._service = service
        self._limits = Limits(settings.error_rate, settings.calm, settings.reminder)
        self._least = _RANKS[settings.severity]
        self._instruments = instruments
        self._folder = folder
        self._board = Board(folder)
        self._own = 0
        self._causes: Counter[tuple[str, str]] = Counter()
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a child: it leads only if the place is free, and has its own threads."""
        leader = getattr(self, "_leader", None)
        if leader is not None:
            leader.resign()
        self._leader: Leader | None = None
        self._rate = Rate()
        self._lock = threading.Lock()
        self.sender.after_fork()

    def observe(self, record: RequestRecord) -> None:
        """Count a request that failed; probes fail on purpose."""
        if (record.status >= 500 or record.outcome == "crashed") and not record.operational:
            self._instruments.failed.inc()
            cause = type(record.error).__name__ if record.error is not None else str(record.status)
            with self._lock:
                self._own += 1
                if len(self._causes) < _MOST_CAUSES:
                    self._causes[record.route or "unmatched", cause] += 1

    def start(self) -> None:
        """Note where the counter stands as this process begins to serve: what comes now counts.

        The first process to serve leads, since it alone has seen the beginning.
        """
        self._leads()
        self._rate.feed(monotonic(), self._failed_so_far())

    def watch(self) -> None:
        """Look at the error rate, if this process is the one that does; called every few seconds."""
        if self._instruments.total is not None and not self._leads():
            return
        rate = self._rate.feed(monotonic(), self._failed_so_far())
        self._instruments.rate.set(rate)
        now = time()
        with self._board.open(now) as episodes:
            episode = episodes.setdefault(_RATE, Episode())
            began = episode.began
            news = judge(episode, rate, now, self._limits)
        if news:
            self.sender.send(self._about_rate(news, rate, began or now))
        if rate == 0:
            with self._lock:
                self._causes.clear()

    def on_event(self, event: Event) -> None:
        """Alert of an event that is bad enough, once per episode, and of the end of that."""
        if _RANKS.get(event.severity, 0) >= self._least:
            if self._begins(event.name):
                self.sender.send(self._about_event(event, "failure"))
        elif self._ends(event.name):
            self.sender.send(self._about_event(event, "success"))

    def test_message(self) -> Message:
        """Return what `flask prod alerts test` sends."""
        return Message(f"[{self._where}] Test", f"Alerts of {self._where} arrive here.\n{self._footer()}", "info")

    def close(self) -> None:
        """Send what waits, for a second at most."""
        self.sender.close()
        if self._leader is not None:
            self._leader.resign()

    def _leads(self) -> bool:
        if self._leader is None:
            self._leader = Leader(self._folder(), "alerts")
        return self._leader.leads()

    def _failed_so_far(self) -> float:
        total = self._instruments.total
        return float(self._own) if total is None else total(FAILED)

    def _begins(self, name: str) -> bool:
        now = time()
        with self._board.open(now) as episodes:
            episode = episodes.setdefault(name, Episode())
            if episode.open and now - episode.told < (self._limits.reminder or _EPISODE):
                return False
            episode.began = episode.began or now
            episode.told = now
        return True

    def _ends(self, name: str) -> bool:
        """End the episodes that an event of this name ends; tell whether there was one."""
        family, _, last = name.rpartition(".")
        if last not in _ENDS and last not in _STATES:
            return False
        with self._board.open(time()) as episodes:
            ended = [one for one in episodes if one == name or (last in _ENDS and one.startswith(f"{family}."))]
            was_open = any(episodes[one].open for one in ended)
            for one in ended:
                del episodes[one]
        return was_open

    @property
    def _where(self) -> str:
        return f"{self._service.service_name} {self._service.environment}"

    def _about_rate(self, news: str, rate: float, began: float) -> Message:
        minutes = max(1, round((time() - began) / 60))
        if news == "ended":
            text = f"Requests no longer fail ({rate:g} in the last minute). It lasted {minutes} min."
            return Message(f"[{self._where}] Recovered: few requests fail", f"{text}\n{self._footer()}", "success")
        limit = f"{rate:g} requests failed in the last minute, {self._limits.rate:g} or more are an alert."
        if news == "lasting":
            limit = f"For {minutes} min too many requests fail. {limit}"
        body = "\n".join((limit, *self._worst(), self._footer()))
        return Message(f"[{self._where}] {rate:g} requests a minute fail", body)

    def _about_event(self, event: Event, kind: str) -> Message:
        title = f"[{self._where}] {event.name}: {event.severity}"
        if kind == "success":
            title = f"[{self._where}] Recovered: {event.name}"
        return Message(title, f"{redact_text(event.message)}\n{self._footer()}", kind)

    def _worst(self) -> list[str]:
        """Say what failed most, as far as this process has seen it."""
        with self._lock:
            worst = self._causes.most_common(_SHOWN_CAUSES)
            self._causes.clear()
        return [f"- {route}: {cause}, {count} in this worker" for (route, cause), count in worst]

    def _footer(self) -> str:
        version = self._service.service_version
        return f"{self._where}, version {version}, host {socket.gethostname()}, {strftime('%Y-%m-%d %H:%M:%S %z')}"
