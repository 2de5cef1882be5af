"""Kernels on as many threads as PyTorch uses."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch


def most_parts() -> int:
    """Parts into which `parallel` cuts rows, at most."""
    threads = torch.get_num_threads()
    return 4 * threads if threads > 1 else 1


def parallel(function: Any, rows: int, *arguments: Any) -> None:
    """Run a kernel over `range(rows)` on PyTorch's number of threads.

    A thread that has finished a part takes the next one, since parts take unequal times and waking
    a thread takes as long as some of them. The rows of a part do not depend on which thread takes it.

    Args:
        function: the kernel.
        rows: how many there are.
        arguments: the kernel's, after `part, lo, hi`.
    """
    count = max(1, min(most_parts(), rows))
    bounds = [rows * part // count for part in range(count + 1)]
    parts, lock = iter(range(count)), threading.Lock()

    def work() -> None:
        while True:
            with lock:  # without the GIL, two threads could get the same number
                part = next(parts, None)
            if part is None:
                return
            function(part, bounds[part], bounds[part + 1], *arguments)

    threads = torch.get_num_threads()
    others = [_pool(threads - 1).submit(work) for _ in range(1, min(threads, count))]
    work()
    for other in others:
        if not other.cancel():
            other.result()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _after_fork() -> None:
    """Prepare a forked process, which has its parent's pools, ours and OpenMP's, without their threads.

    Our pool is made again when it is needed. OpenMP's cannot be made again: its second thread would
    be waited for forever, so PyTorch computes on one thread here.
    """
    _pool.cache_clear()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
