"""Independent trainings side by side, one process per core with one thread each.

A tiny model does not fill a processor: up to width 256 PyTorch on one thread trains as
fast as on two, because waking a second thread costs what it saves. Two trainings on two
cores take half the time of one after the other.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from tinylm.progress import forward_progress, show_progress

Result = TypeVar("Result")

# glibc's malloc gives every large block back to the system and asks for it anew, a page fault
# for every 4 kB. A process that trains asks for the same blocks in every step, so it may as
# well keep them. Read by glibc when a process starts, and by nothing else.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 26),
}


def run_side_by_side(function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]]) -> list[Result]:
    """Call `function(*job)` for each job, as many at a time as there are cores.

    The jobs' progress bars are drawn together by this process.

    Args:
        function: importable by name, as other processes must find it.
        jobs: its arguments; jobs that take longest should come first.

    Returns:
        What the calls returned, in the order of `jobs`.

    Raises:
        Exception: the first that a call raised; no further job begins then.
    """
    with workers(len(jobs)) as submit:
        # Plain pickles: PyTorch would pass tensors by handles that die with their process.
        futures = [submit(_call, function, job) for job in jobs]
        return [pickle.loads(future.result()) for future in futures]


@contextmanager
def workers(most: int) -> Iterator[Callable[..., Future[Any]]]:
    """Processes of one thread each, at most one per core, whose progress bars this process draws.

    Args:
        most: so many at most.

    Yields:
        `submit(function, *arguments)`, as of an executor. What has not begun when the block is
        left by an exception is never begun.
    """
    # Started anew, not forked: a copy of a process whose OpenMP has begun can hang.
    context = multiprocessing.get_context("spawn")
    count = min(most, os.cpu_count() or 1)
    for name, value in KEEP_MEMORY.items():
        os.environ.setdefault(name, value)
    messages = context.Queue()
    painter = threading.Thread(target=show_progress, args=(messages.get,), daemon=True)
    painter.start()
    try:
        with ProcessPoolExecutor(count, context, _prepare, (messages,)) as pool:
            try:
                yield pool.submit
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        messages.put(None)
        painter.join()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare(messages: Any) -> None:
    """Make a new process a worker."""
    torch.set_num_threads(1)
    forward_progress(messages.put)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is killed; it would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], job: tuple[Any, ...]) -> bytes:
    return pickle.dumps(function(*job))
