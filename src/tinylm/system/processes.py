"""Independent trainings side by side, one process per core with one thread each.

A tiny model does not fill a processor: up to width 256 PyTorch on one thread trains as
fast as on two, because waking a second thread costs what it saves. Two trainings on two
cores take half the time of one after the other.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from tinylm.system.cores import cores
from tinylm.system.progress import forward_progress, show_progress

Result = TypeVar("Result")


def run_side_by_side(
    function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], workers: int | None = None
) -> list[Result]:
    """Call `function(*job)` for each job, as many at a time as there are cores.

    The jobs' progress bars are drawn together by this process.

    Args:
        function: importable by name, as other processes must find it.
        jobs: its arguments; jobs that take longest should come first.
        workers: at most so many at a time; 1 calls the function in this process, on one thread.

    Returns:
        What the calls returned, in the order of `jobs`.

    Raises:
        Exception: the first that a call raised; no further job begins then.
    """
    count = min(len(jobs), workers or cores())
    # A process of a daemon's is not allowed to have processes of its own.
    if count == 1 or multiprocessing.current_process().daemon:
        with threads(1):
            return [function(*job) for job in jobs]
    with worker_processes(count) as submit:
        # Plain pickles: PyTorch would pass tensors by handles that die with their process.
        futures = [submit(_call, function, job) for job in jobs]
        return [pickle.loads(future.result()) for future in futures]


@contextmanager
def worker_processes(most: int) -> Iterator[Callable[..., Future[Any]]]:
    """Processes of one thread each, at most one per core, whose progress bars this process draws.

    Args:
        most: so many at most.

    Yields:
        `submit(function, *arguments)`, as of an executor. What has not begun when the block is
        left by an exception is never begun.
    """
    # Started anew, not forked: a copy of a process whose OpenMP has begun can hang.
    context = multiprocessing.get_context("spawn")
    count = min(most, cores())
    messages = context.Queue()
    painter = threading.Thread(target=show_progress, args=(messages.get,), daemon=True)
    painter.start()
    try:
        with _without_main(), ProcessPoolExecutor(count, context, _prepare, (messages,)) as pool:
            try:
                yield pool.submit
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        messages.put(None)
        painter.join()


@contextmanager
def _without_main() -> Iterator[None]:
    """Let new processes start without the user's script, which they do not need.

    They would run it from the top to have its functions; a script without a guard
    (`if __name__ == "__main__":`) would train again, in every process.
    """
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update({"__spec__": None} | hidden)


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
