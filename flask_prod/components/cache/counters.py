"""What the room counts, for the metrics, for its health, and for `flask prod cache stats`."""

from __future__ import annotations

from dataclasses import dataclass

from flask_prod.core.ports import CounterPort, GaugePort, HistogramPort, Meter

LOOKUPS = "flask_prod_cache_lookups_total"
MISSES = "flask_prod_cache_misses_total"
REFUSED = "flask_prod_cache_refused_total"

_BUCKETS = (0.00001, 0.000025, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.1, 0.3)


@dataclass(frozen=True, slots=True)
class Counters:
    """Where the room counts: `looked` by result, back end and tier, `missed` by outcome and back end."""

    looked: CounterPort
    missed: CounterPort
    refused: CounterPort
    seconds: HistogramPort
    bytes: GaugePort

    def damaged(self) -> None:
        """Count bytes that are no entry."""
        self.refused.inc("damaged")


def build_counters(meter: Meter) -> Counters:
    """Make the metrics of one application's cache."""
    return Counters(
        looked=meter.counter(
            LOOKUPS,
            "Look-ups in the cache by result (hit, stale or miss), back end, and the tier that had it.",
            ("result", "backend", "tier"),
        ),
        missed=meter.counter(
            MISSES,
            "Misses by what became of them: computed, coalesced (another caller computed it), failed (the "
            "computation did, and an old entry was served), absent (nobody computes it); by back end.",
            ("outcome", "backend"),
        ),
        refused=meter.counter(
            REFUSED, "Pages and values that were not cached, by reason; docs/cache.md explains each.", ("reason",)
        ),
        seconds=meter.histogram(
            "flask_prod_cache_seconds",
            "Seconds that a look-up took by back end and tier; of those in memory, one in sixteen is measured.",
            ("backend", "tier"),
            _BUCKETS,
        ),
        bytes=meter.gauge(
            "flask_prod_cache_bytes",
            "Bytes that entries take in the memory of a process, by back end; the fullest process counts.",
            ("backend",),
        ),
    )


def ratio(meter: Meter) -> dict[str, object]:
    """Return how many look-ups there were in all processes of this host, and the part that the cache answered."""
    lookups = meter.total(LOOKUPS)
    if not lookups:
        return {"lookups": 0}
    hits = max(0.0, lookups - meter.total(MISSES))
    return {"lookups": int(lookups), "hit_ratio": round(hits / lookups, 4)}
