"""What instances use of what they may, where they wait, and what they lose: utilisation, saturation, errors."""

from __future__ import annotations

from collections.abc import Iterator

from ..plan import Plan
from .panel import GREEN, RED, YELLOW, Board, Lens, Panel, Query, Row, highest, lens_of, rate

_CERTIFICATE = "flask_prod_certificate_expiry_timestamp_seconds"


def board(plan: Plan) -> Board:
    """Return the dashboard of processors, memory and descriptors."""
    lens = lens_of(plan)
    return Board(
        name="resources",
        title="Resources",
        description="Processor, memory, garbage collection, descriptors and connections of each instance.",
        page="instances",
        rows=(
            Row("Processor and memory", tuple(_used(plan, lens))),
            Row("Processes", _processes(lens)),
            Row("Lost", tuple(_lost(plan, lens))),
        ),
    )


def _used(plan: Plan, lens: Lens) -> Iterator[Panel]:
    yield Panel(
        title="Processor",
        description=f"The part of {plan.deploy.cpu:g} CPU (DEPLOY_CPU) that the processes of an instance use.",
        unit="percentunit",
        most=1,
        steps=((0, GREEN), (0.7, YELLOW), (0.9, RED)),
        queries=(
            Query(
                f"{rate('flask_prod_cpu_seconds_total', lens.all, 'job', 'instance')} / {plan.deploy.cpu:g}",
                "{{job}} {{instance}}",
            ),
        ),
    )
    memory = f"flask_prod_memory_bytes{{{lens.all}}} / flask_prod_memory_limit_bytes{{{lens.all}}}"
    yield Panel(
        title="Memory",
        description="The part of its container's memory that an instance uses; at 1 the kernel kills it.",
        unit="percentunit",
        most=1,
        steps=((0, GREEN), (0.7, YELLOW), (0.85, RED)),
        queries=(Query(memory, "{{job}} {{instance}}"),),
    )
    yield Panel(
        title="Memory of the processes",
        description="Resident memory of all processes of an instance added up; what they share counts in each.",
        unit="bytes",
        queries=(Query(f"process_resident_memory_bytes{{{lens.all}}}", "{{job}} {{instance}}"),),
    )


def _processes(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Garbage collections",
            description=(
                "By generation; the last one looks at everything, and holds all threads of its process up."
            ),
            unit="ops",
            queries=(
                Query(
                    rate("flask_prod_gc_collections_total", lens.all, "generation"), "generation {{generation}}"
                ),
            ),
        ),
        Panel(
            title="Descriptors",
            description="Open files and sockets of all processes of an instance together.",
            unit="short",
            queries=(Query(f"process_open_fds{{{lens.all}}}", "{{job}} {{instance}}"),),
        ),
        Panel(
            title="Connections",
            description="Connections of clients that are open in the workers, idle ones included.",
            unit="short",
            queries=(Query(f"sum by (instance) (flask_prod_http_connections{{{lens.web}}})", "{{instance}}"),),
        ),
        Panel(
            title="Age of the oldest process",
            description="Falls to zero when an instance is replaced, or restarts.",
            unit="s",
            width=12,
            queries=(Query(f"time() - process_start_time_seconds{{{lens.all}}}", "{{job}} {{instance}}"),),
        ),
        Panel(
            title="Answers to Prometheus",
            description="1 while an instance answers a scrape.",
            unit="short",
            width=12,
            most=1,
            steps=((0, RED), (1, GREEN)),
            queries=(Query(f"up{{{lens.all}}}", "{{job}} {{instance}}"),),
        ),
    )


def _lost(plan: Plan, lens: Lens) -> Iterator[Panel]:
    if {"redis", "tracing"} & plan.rooms:
        yield Panel(
            title="Degraded",
            description="1 while a room goes on without what it depends on; the worst instance counts.",
            unit="short",
            most=1,
            steps=((0, GREEN), (1, RED)),
            queries=(Query(highest("flask_prod_degraded", lens.all, "component"), "{{component}}"),),
        )
    if "logs" in plan.rooms:
        yield Panel(
            title="Log lines dropped",
            description="Lines that found no room, because whatever takes them is slower than they come.",
            unit="cps",
            queries=(Query(rate("flask_prod_log_lines_dropped_total", lens.all, "instance"), "{{instance}}"),),
        )
    if "tracing" in plan.rooms:
        yield Panel(
            title="Spans",
            description=(
                "Spans that were exported, that the collector did not take, or for which there was no room."
            ),
            unit="cps",
            queries=(Query(rate("flask_prod_spans_total", lens.all, "result"), "{{result}}"),),
        )
    if "error_tracking" in plan.rooms:
        yield Panel(
            title="Error reports",
            description="Reports that were sent, withheld as equal to many, or dropped.",
            unit="cps",
            queries=(Query(rate("flask_prod_error_reports_total", lens.all, "result"), "{{result}}"),),
        )
    if "health" in plan.rooms:
        yield Panel(
            title="Certificates",
            description="How long the certificates last that are served, and that health checks see.",
            unit="s",
            queries=(Query(f"min by (certificate) ({_CERTIFICATE}{{{lens.web}}}) - time()", "{{certificate}}"),),
        )
