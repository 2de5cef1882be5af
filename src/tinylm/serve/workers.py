"""Several processes that accept connections on one socket: `tinylm serve --workers`.

The parent loads the model and forks. Its workers share the memory of the model, and one that dies is
replaced without loading it again. All hold one end of a pipe and only the parent the other: when that is
closed, since the parent stops or has been killed, the workers finish what they have accepted and end.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from types import FrameType

from tinylm.errors import MachineWarning, UserError
from tinylm.system.cores import cores, limit_cores

REST_SECONDS = 1.0  # from a worker's death until another may be replaced: one that cannot start is no storm


@contextlib.contextmanager
def shared_metrics(workers: int) -> Iterator[None]:
    """Let several workers that are forked in this block count together, whichever is asked for the metrics.

    prometheus_client decides how it counts when it is first imported, which must not be earlier.
    """
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="tinylm-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def run_workers(serve: Callable[[], None], listener: socket.socket, count: int) -> None:
    """Run `serve` in processes of its own until SIGTERM or SIGINT, and replace those that die.

    Each computes on its share of the cores; more threads than cores would only wait for each other.

    Args:
        serve: accepts connections on `listener` until SIGTERM, and then finishes what it has accepted.
        listener: closed here when the workers are to end, as it is by each of them.
        count: of the processes.

    Raises:
        UserError: the system cannot fork.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise UserError("`workers` was more than 1, which needs a system with fork; expected 1.")
    from prometheus_client.multiprocess import mark_process_dead

    share = max(1, cores() // count)
    context = multiprocessing.get_context("fork")
    held, lifeline = context.Pipe(duplex=False)

    def stop(number: int, frame: FrameType | None) -> None:
        for ended in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ended, signal.SIG_IGN)
        lifeline.close()

    def start() -> multiprocessing.process.BaseProcess:
        process = context.Process(target=_work, args=(serve, held, lifeline, share))
        process.start()
        return process

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    workers: list[multiprocessing.process.BaseProcess] = []
    try:
        workers += [start() for _ in range(count)]
        while held not in wait([held, *(worker.sentinel for worker in workers)]):
            for place, worker in enumerate(workers):
                if worker.exitcode is not None:
                    mark_process_dead(worker.pid)
                    warnings.warn(
                        f"worker {worker.pid} ended with exit code {worker.exitcode}; another replaces it.",
                        MachineWarning,
                        stacklevel=2,
                    )
                    workers[place] = start()
            held.poll(REST_SECONDS)
    finally:
        lifeline.close()
        listener.close()  # the last one closes it for clients, so they are not kept waiting for nobody
        for worker in workers:
            worker.join()


def _work(serve: Callable[[], None], held: Connection, lifeline: Connection, share: int) -> None:
    """Serve on a share of the cores until the other end of `held` is closed."""
    limit_cores(share)
    signal.set_wakeup_fd(-1)  # it is the parent's
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    lifeline.close()

    def follow() -> None:
        held.poll(None)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()
    serve()


def _leave(number: int, frame: FrameType | None) -> None:
    for ended in (signal.SIGTERM, signal.SIGINT):  # a service manager sends it to every process
        signal.signal(ended, signal.SIG_IGN)
    sys.exit(0)
