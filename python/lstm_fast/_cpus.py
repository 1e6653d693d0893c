"""The CPUs that this process may use: affinity and the quotas of its cgroup."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def available_cpus(membership: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> int:
    """The CPUs that affinity and every quota from the process's cgroup up to the root leave, at least 1.

    ``membership`` is the kernel's list of the process's cgroups, ``mount`` the folder of the hierarchy (of all
    hierarchies in version 1).
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota in _quotas(Path(membership), Path(mount)):
        cpus = min(cpus, max(1, math.floor(quota)))
    return cpus


def _quotas(membership: Path, mount: Path) -> Iterator[float]:
    """Every quota that holds, in CPUs."""
    try:
        lines = membership.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return  # no cgroups
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # The mount may name the controllers in another order; a link of each one's own name stands beside it.
        base = mount if not controllers else next(filter(Path.is_dir, (mount / controllers, mount / "cpu")), mount)
        # In a container the path may be the host's and be missing here: what is mounted then is the container's own.
        inside = PurePosixPath(path.lstrip("/"))
        for group in (inside, *inside.parents):
            quota = _quota_v1(base / group) if controllers else _quota_v2(base / group)
            if quota is not None:
                yield quota


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None  # the root has no such file


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return None if quota < 0 else quota / int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None
