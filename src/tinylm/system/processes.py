"""Independent jobs side by side, one process per core with one thread each.

A tiny model cannot use many cores: up to width 256 PyTorch trains as fast on one thread as on
two, because waking the second one costs what it saves. Two trainings on two cores take half
the time of one after the other.
"""

from __future__ import annotations

import _thread
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Protocol, TypeVar

from tinylm.errors import UserError
from tinylm.system.cores import cores
from tinylm.system.files import remove_temporaries
from tinylm.system.interrupts import end
from tinylm.system.progress import forward_progress, show_progress

Result = TypeVar("Result")
Submit = Callable[..., Future[Any]]
KILLED = "a process that was at work has been killed, perhaps for want of memory"
GRACE = 1.0  # seconds in which interrupted work may clean up


class Engine(Protocol):
    """What runs independent jobs, each on one core and perhaps a share of a GPU.

    A job is a function that is importable by name, as other processes must find it, and its arguments.
    """

    def places(self, wanted: int | None = None, gpu: float = 0) -> int:
        """How many jobs run at a time, each with the share `gpu` of a GPU.

        As many as there is room for, or the number that is wanted.
        """
        ...

    def workers(self, most: int, gpu: float = 0) -> AbstractContextManager[Submit]:
        """At most `most` workers: a context with `submit(function, *arguments)`, as of an executor.

        A future raises what its job raised, and `BrokenProcessPool` where the process was lost. When the
        block is left by an exception, what is under way is interrupted.
        """
        ...


class LocalEngine:
    """The processes of this machine."""

    def places(self, wanted: int | None = None, gpu: float = 0) -> int:
        """One per core; on a GPU, as many as share it. More than there are cores are never wanted."""
        return min(cores(), wanted or (round(1 / gpu) if gpu else cores()))

    def workers(self, most: int, gpu: float = 0) -> AbstractContextManager[Submit]:
        """See `worker_processes`."""
        return worker_processes(most)


LOCAL = LocalEngine()


def run_side_by_side(
    function: Callable[..., Result],
    jobs: Sequence[tuple[Any, ...]],
    workers: int | None = None,
    engine: Engine = LOCAL,
) -> list[Result]:
    """Call `function(*job)` for each job, as many at a time as there are cores.

    The progress bars of jobs in local processes are drawn together by this process.

    Args:
        function: importable by name, as other processes must find it.
        jobs: its arguments; jobs that take longest should come first.
        workers: the most at a time; 1 calls the function in this process, on one thread, where the
            engine is local.
        engine: where the jobs run.

    Returns:
        What the calls returned, in the order of `jobs`.

    Raises:
        Exception: the first that a call raised; jobs under way are interrupted then.
        UserError: a process was killed.
    """
    count = min(len(jobs), engine.places(workers))
    # A process of a daemon's is not allowed to have processes of its own.
    if engine is LOCAL and (count == 1 or multiprocessing.current_process().daemon):
        with threads(1):
            return [function(*job) for job in jobs]
    try:
        with engine.workers(count) as submit:
            # Plain pickles: PyTorch would pass tensors by handles that die with their process.
            futures = [submit(_pickled, function, job) for job in jobs]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()  # one that failed raises here, before the others have ended
            return [pickle.loads(future.result()) for future in futures]
    except BrokenProcessPool as error:
        raise UserError(f"{KILLED}; fewer at a time need less (`n_jobs`).") from error


def in_order(
    submit: Submit, function: Callable[..., Result], jobs: Iterable[tuple[Any, ...]], ahead: int
) -> Iterator[Result]:
    """The results of a stream of jobs in its order, `ahead` of them under way at most.

    Raises:
        Exception: what a job raised.
        UserError: a process was killed.
    """
    under_way: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            if len(under_way) == ahead:
                yield under_way.popleft().result()
            under_way.append(submit(function, *job))
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(f"{KILLED}.") from error


def start_loading() -> multiprocessing.context.BaseContext:
    """Let a process load what this one has loaded, which workers then are copies of; this one goes on.

    A worker that starts afresh takes seconds to import PyTorch and scikit-learn, in every process and for
    every pool. It is not a copy of this process, as one whose OpenMP has begun can hang. Called early, it
    costs no time where there is a second core; it is called again when workers start.

    Returns:
        What starts workers: on Linux those copies, elsewhere, where copies are not safe, new processes.
    """
    _start_quiet_resource_tracker()
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    loaded = [name for name in sys.modules if name.split(".")[0] == "tinylm"]
    context.set_forkserver_preload([*loaded, "tinylm.system.unheard"])
    # Libraries read the number of threads when they are loaded, and modules are to be those of this process.
    with _sigint_blocked(), _environment(OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path)):
        forkserver.ensure_running()
    return context


@contextmanager
def worker_processes(most: int) -> Iterator[Submit]:
    """Processes of one thread each, at most one per core, whose progress bars this process draws.

    Args:
        most: their largest number.

    Yields:
        `submit(function, *arguments)`, as of an executor. Where the block is left by an exception,
        Ctrl-C for one, what is under way is interrupted and what has not begun never begins.
    """
    context = start_loading()
    count = min(most, cores())
    messages = context.Queue()
    painter = threading.Thread(target=show_progress, args=(messages.get,), daemon=True)
    painter.start()
    patience = None
    # Workers hold the one end and notice when the other is closed, which this process does to
    # interrupt them and the system does when this process is killed.
    held, interrupt = context.Pipe(duplex=False)
    try:
        with (
            _without_main(),
            ProcessPoolExecutor(count, context, _prepare, (messages, held, dict(os.environ))) as pool,
        ):

            def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
                with _sigint_blocked():
                    return pool.submit(_work, function, arguments)

            try:
                yield submit
            except BaseException:
                patience = 0.5  # a worker that is killed may leave the queue unusable
                interrupt.close()
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        messages.cancel_join_thread()
        messages.put(None)
        painter.join(patience)
        held.close()
        interrupt.close()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Let processes that are started here not hear Ctrl-C, which a terminal sends to all.

    This process hears it and decides; they would print where it met them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_quiet_resource_tracker() -> None:
    """Start Python's process that cleans up semaphores, so that it does it without a word.

    Where work is ended by force, it warns of what was left, which it removes itself.
    """
    if sys.platform == "win32":  # there is none
        return
    from multiprocessing import resource_tracker

    before = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
    with _environment(PYTHONWARNINGS=f"{before},{quiet}" if before else quiet):
        resource_tracker.ensure_running()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Let processes that are started here find these values in their environment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
    """Let PyTorch use `count` threads for a while."""
    import torch  # slow to import

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- in a worker ---

_working = _interrupted = False


def _prepare(messages: Any, held: Connection, environment: dict[str, str]) -> None:
    """Make a new process a worker, with the environment that its parent has now."""
    os.environ.clear()
    os.environ.update(environment | {"OMP_NUM_THREADS": "1"})
    forward_progress(messages.put)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    threading.Thread(target=_wait_for_interrupt, args=(held,), daemon=True).start()


def _work(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    global _working  # noqa: PLW0603 (a worker does one thing at a time)
    _working = True
    try:
        return function(*arguments)
    except KeyboardInterrupt:  # the result is no longer needed
        os._exit(1)
    finally:
        _working = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted  # noqa: PLW0603
    if not _working:
        os._exit(1)
    if not _interrupted:  # a second time, it would interrupt the cleaning up
        _interrupted = True
        end(signal.SIGINT)


def _wait_for_interrupt(held: Connection) -> None:
    """Interrupt the work of this process when the other end of `held` is closed, and end it soon after."""
    held.poll(None)
    _thread.interrupt_main()
    time.sleep(GRACE)
    remove_temporaries()
    os._exit(1)


def _pickled(function: Callable[..., Any], job: tuple[Any, ...]) -> bytes:
    return pickle.dumps(function(*job))
