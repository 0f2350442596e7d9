"""How many cores this process may use: those that it is bound to, and no more than its control group's limit allows.

Containers are limited by control groups: `docker run --cpus 2` and a Kubernetes limit leave every core visible, and stop
all threads of the container for the rest of each tenth of a second once they have used their share.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_OWN: Final = Path("/proc/self/cgroup")
_GROUPS: Final = Path("/sys/fs/cgroup")


def cores() -> int:
    """At least 1. A part of a core is left to what runs beside the workers: one more of them would be stopped most."""
    return max(1, int(core_share()))


def core_share() -> float:
    """The same with the part of a core, which may be less than 1."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return float(min([bound, *_limits()]))


def _limits() -> Iterator[float]:
    """The cores that this process's control group and those around it allow, where they set a limit."""
    with suppress(OSError):
        for line in _OWN.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":  # version 2
                yield from _limits_of(_GROUPS, path, "cpu.max")
            elif "cpu" in controllers.split(","):
                yield from _limits_of(_GROUPS / "cpu", path, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _limits_of(root: Path, path: str, *files: str) -> Iterator[float]:
    # In a container, the path is as the host sees it, or `/`; the container's own group is the root then.
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        if folder == root.parent:
            break
        with suppress(OSError, ValueError):
            quota, period = " ".join((folder / file).read_text() for file in files).split()
            if float(quota) > 0:  # -1 and "max" are no limit
                yield float(quota) / float(period)
