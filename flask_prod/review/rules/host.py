"""What lies under the service: Python, its libraries, time zones, the clock, the disk."""

from __future__ import annotations

import ctypes
import shutil
import sys
import zoneinfo
from datetime import UTC, date, datetime
from pathlib import Path

from flask_prod.review.rule import ERROR, WARNING, Evidence, Evidences, rule
from flask_prod.review.subject import Subject

from .known import troubled

_ENDS = {(3, 11): date(2027, 10, 31), (3, 12): date(2028, 10, 31), (3, 13): date(2029, 10, 31),
         (3, 14): date(2030, 10, 31)}  # fmt: skip
"""When security fixes end: devguide.python.org/versions."""

_WRITTEN = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
"""No clock is right that is before the day this was written."""

_UNSYNCHRONISED = 5
"""TIME_ERROR of adjtimex(2)."""

LEAST_FREE = 0.05


@rule(
    "P901", ERROR, "A library has known trouble",
    remedy="Install the named version or a newer one.",
)  # fmt: skip
def libraries(_subject: Subject) -> Evidences:
    """The hole is public, and so are programs that use it. The table is flask-prod's own: pip-audit knows more."""
    for name, found, good, why in troubled():
        yield Evidence(f"{name} {found} is older than {good}: {why}")


@rule(
    "P902", WARNING, "Python gets no more security fixes",
    remedy="Run a newer one.",
)  # fmt: skip
def python(subject: Subject) -> Evidences:
    """Holes found from now on stay open."""
    ends = _ENDS.get(sys.version_info[:2])
    if ends is not None and datetime.fromtimestamp(subject.now, UTC).date() > ends:
        yield Evidence(f"Python {sys.version_info.major}.{sys.version_info.minor} ended on {ends}")


@rule(
    "P903", ERROR, "The clock is wrong",
    remedy="Set it, and let chrony or systemd-timesyncd keep it.",
)  # fmt: skip
def clock(subject: Subject) -> Evidences:
    """Tokens, certificates, limits and schedules all ask it."""
    if subject.now < _WRITTEN:
        yield Evidence(f"the clock says {datetime.fromtimestamp(subject.now, UTC):%Y-%m-%d}")


@rule(
    "P904", WARNING, "Time zones are not known",
    remedy="pip install tzdata, or install the system's package of that name.",
)  # fmt: skip
def zones(_subject: Subject) -> Evidences:
    """Slim images leave them out: every schedule and every local time in a named zone fails."""
    try:
        zoneinfo.ZoneInfo("Europe/Berlin")
    except zoneinfo.ZoneInfoNotFoundError:
        yield Evidence("there is no time zone called Europe/Berlin")


@rule(
    "P905", WARNING, "Nothing keeps the clock right",
    remedy="Run chrony or systemd-timesyncd on the host.", online=True,
)  # fmt: skip
def drifting(_subject: Subject) -> Evidences:
    """A clock alone is off by seconds a week; limits that several hosts share, and tokens, then disagree."""
    if _clock_state() == _UNSYNCHRONISED:
        yield Evidence("the kernel says that its clock is not synchronised")


@rule(
    "P906", WARNING, "A disk is nearly full",
    remedy="Make room, or move what grows (logs, caches, backups) to a disk of its own.", online=True,
)  # fmt: skip
def disk(subject: Subject) -> Evidences:
    """A database, a cache or a log that cannot write takes the service down."""
    places = {str(subject.folder)}
    if subject.app is not None:
        places.add(subject.app.instance_path)
    places.update(text for key in ("RUN_DIR", "CACHE_DIR") if (text := subject.text(key)))
    for place in sorted(one for one in places if Path(one).is_dir()):
        usage = shutil.disk_usage(place)
        if usage.free < usage.total * LEAST_FREE:
            yield Evidence(f"{place} has {usage.free / usage.total:.1%} free", "", Path(place))


def _clock_state() -> int:
    """Return what adjtimex(2) says, 0 where it cannot be asked."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return int(libc.adjtimex(ctypes.create_string_buffer(512)))  # modes 0: only read
    except (OSError, AttributeError):
        return 0


RULES = (libraries, python, clock, zones, drifting, disk)
