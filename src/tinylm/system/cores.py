"""How many cores this process may use, which is not how many the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


_most = math.inf


@lru_cache  # every prediction needs it, and finding it takes longer than reading a text
def cores() -> int:
    """Cores that this process may use at a time, counted once.

    Fewer than the machine has where its affinity says so (`taskset`, a job scheduler), a quota of
    its control group (a container's `--cpus`), or `limit_cores`.
    """
    return max(1, math.ceil(min([allowed_cores(), *_quotas(), _most])))


def limit_cores(most: int) -> None:
    """Let this process, a worker beside others, use at most so many cores."""
    global _most  # noqa: PLW0603 (cores are a process's own)
    _most = most
    cores.cache_clear()


def allowed_cores() -> int:
    """Cores that this process may run on, whatever share of their time it has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        return os.cpu_count() or 1


def limit_threads() -> None:
    """Let libraries that are loaded from now on start no more threads than a quota pays for.

    OpenMP counts the cores that it may run on. A container with a share of many cores would have
    all of them, and its threads would be stopped in turn.
    """
    if cores() < allowed_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def worker_count(n_jobs: int | None) -> int:
    """Processes for scikit-learn's `n_jobs`: a number, None for all cores, -1 for all, -2 for all but one."""
    if n_jobs is None:
        return cores()
    return n_jobs if n_jobs > 0 else max(1, cores() + 1 + n_jobs)


def _quotas() -> Iterator[float]:
    """Quotas, in cores, of the control groups that this process is in (Linux; version 1 and 2)."""
    for folder in _control_groups():
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = (
                    (folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
                )
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)
        except (OSError, ValueError):  # a group without a quota
            continue


def _control_groups() -> Iterator[Path]:
    """Folders of this process's control groups for CPU time and of the groups around them."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one tree, version 1 one for each set of controllers.
        for root in (GROUPS / controllers, GROUPS / "cpu") if controllers else (GROUPS, GROUPS / "unified"):
            # A container may see its own group as the root, under the path that it has outside.
            group = root / path.lstrip("/")
            yield from (group, *(parent for parent in group.parents if parent.is_relative_to(root)))
