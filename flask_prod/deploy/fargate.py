"""The sizes that AWS Fargate has: CPU units, and the megabytes that each may have."""

from __future__ import annotations

SIZES = (
    (256, (512, 1024, 2048)),
    (512, tuple(range(1024, 4096 + 1, 1024))),
    (1024, tuple(range(2048, 8192 + 1, 1024))),
    (2048, tuple(range(4096, 16384 + 1, 1024))),
    (4096, tuple(range(8192, 30720 + 1, 1024))),
    (8192, tuple(range(16384, 61440 + 1, 4096))),
    (16384, tuple(range(32768, 122880 + 1, 8192))),
)
"""Units of 1/1024 CPU, and megabytes: docs of AWS::ECS::TaskDefinition, Cpu."""


def size_of(cpu: float, memory: int) -> tuple[int, int]:
    """Return the smallest size with at least so many CPUs and bytes, in units and megabytes; else the largest."""
    fitting = (
        (units, megabytes)
        for units, choices in SIZES
        for megabytes in choices
        if units >= cpu * 1024 and megabytes * 1024**2 >= memory
    )
    return next(fitting, (SIZES[-1][0], SIZES[-1][1][-1]))
