"""Cores by affinity and by the quota of a control group."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest

from tinylm.system import cores as module
from tinylm.system.cores import allowed_cores, cores, limit_threads, worker_count


@pytest.fixture(autouse=True)
def counted_again() -> Iterator[None]:
    cores.cache_clear()
    yield
    cores.cache_clear()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 cores whose control groups are files under a folder."""
    monkeypatch.setattr(module, "PROC", tmp_path / "proc")
    monkeypatch.setattr(module, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(module, "allowed_cores", lambda: 16)
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def version_1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": str(quota), f"{folder}/cpu.cfs_period_us": str(period)}


V1 = "4:memory:/a\n2:cpu,cpuacct:{}\n0::/"
CASES = {
    "no control group for the CPU": ("4:memory:/a", {}, 16),
    "version 2, no quota": ("0::/", {"groups/cpu.max": "max 100000"}, 16),
    "version 2, docker --cpus 3": ("0::/", {"groups/cpu.max": "300000 100000"}, 3),
    "a part of a core counts": ("0::/", {"groups/cpu.max": "250000 100000"}, 3),
    "at least one": ("0::/", {"groups/cpu.max": "1000 100000"}, 1),
    "more than there are": ("0::/", {"groups/cpu.max": "6400000 100000"}, 16),
    "a slice of systemd": (
        "0::/system.slice/fit.service",
        {
            "groups/system.slice/fit.service/cpu.max": "max 100000",
            "groups/system.slice/cpu.max": "400000 100000",
        },
        4,
    ),
    "the tightest of nested groups": (
        "0::/a/b",
        {"groups/a/b/cpu.max": "500000 100000", "groups/a/cpu.max": "200000 100000"},
        2,
    ),
    "another group's quota": ("0::/a", {"groups/b/cpu.max": "100000 100000"}, 16),
    "version 1": (V1.format("/box"), version_1("groups/cpu,cpuacct/box", 200_000), 2),
    "version 1, no quota": (V1.format("/box"), version_1("groups/cpu,cpuacct/box", -1), 16),
    "version 1, another period": (V1.format("/box"), version_1("groups/cpu,cpuacct/box", 25_000, 5_000), 5),
    "version 1, in a container": (V1.format("/docker/1f2e"), version_1("groups/cpu,cpuacct", 300_000), 3),
    "version 1, other order of names": (V1.format("/"), version_1("groups/cpu", 300_000), 3),
    "both versions": ("1:cpu:/\n0::/box", {"groups/unified/box/cpu.max": "200000 100000"}, 2),
    "damaged": ("0::/", {"groups/cpu.max": "many"}, 16),
}


@pytest.mark.parametrize("case", CASES)
def test_a_quota_counts(machine: Path, case: str) -> None:
    groups, files, expected = CASES[case]
    write(machine, {"proc/self/cgroup": groups} | files)
    assert cores() == expected


def test_affinity_counts() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("needs an operating system with affinity")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_cores() == cores() == 1
    finally:
        os.sched_setaffinity(0, before)
        cores.cache_clear()
    assert allowed_cores() == len(before)


def test_openmp_follows_a_quota_and_the_user(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    limit_threads()
    assert "OMP_NUM_THREADS" not in os.environ
    write(machine, {"proc/self/cgroup": "0::/", "groups/cpu.max": "300000 100000"})
    cores.cache_clear()
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_numbers_of_jobs_count_as_those_of_joblib() -> None:
    for n_jobs in (-100, -3, -2, -1, 1, 5):
        assert worker_count(n_jobs) == joblib.effective_n_jobs(n_jobs)
    assert worker_count(None) == cores() == joblib.cpu_count()
