"""How many processors there are for this process, which may be fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["available_processors"]

_ROOT = Path("/")


def available_processors() -> int:
    """Processors that this process may use at once, at least one.

    They are those that it may run on (`taskset`, a batch system), or what the quota of its control group comes to,
    rounded up, where that is less: a container that was given two processors of a machine with 64 sees all 64.
    """
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([number, *(math.ceil(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """What the control groups of this process, and those around them, allow, in processors."""
    for folder in _control_groups():
        try:
            # Version 2 has both numbers in one file, version 1 has two.
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if quota != "max" and int(quota) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # no such group from in here, or no limit that could be read
            continue


def _control_groups() -> Iterator[Path]:
    try:
        lines = (_ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    mounts = _ROOT / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container may see its own group as the root of a mount, under a path that holds outside.
        group = PurePosixPath(path.lstrip("/"))
        for mount in (mounts / controllers, mounts / "cpu") if controllers else (mounts, mounts / "unified"):
            for part in (group, *group.parents):
                yield mount / part
