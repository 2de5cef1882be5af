"""Ray as the engine: independent jobs on the nodes of a cluster, where one machine is too small.

A job is a Ray task with one core and perhaps a share of a GPU. If its process or its node is lost, Ray
starts it again, elsewhere if need be. Jobs keep their results as files, all or nothing and under locks, in
folders that all nodes share, so that one that is started again counts once.
"""

from __future__ import annotations

import os
import pickle
import platform
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinylm.errors import UserError
from tinylm.system.cores import cores, limit_cores
from tinylm.system.files import marked
from tinylm.system.paths import cache_folder
from tinylm.system.processes import LOCAL, Engine, Submit
from tinylm.system.progress import forward_progress, progress_bars

RETRIES = 3  # of a job whose process or node was lost
ENGINES = ("local", "ray")


@contextmanager
def engine_named(name: str, address: str | None = None, shared: Sequence[Path] = ()) -> Iterator[Engine]:
    """The engine of this name, for a while.

    Args:
        name: "local", the processes of this machine, or "ray".
        address: of a running Ray: "auto", "HOST:PORT" or "ray://HOST:PORT". Without one, the Ray that this
            process has joined already is used, or the one that runs on this machine is joined, or else one
            is started here that ends with the block.
        shared: folders that the jobs write to and read from, which all nodes must reach.

    Raises:
        UserError: an unknown engine, no Ray at the address, or Ray is not installed.
    """
    if name not in ENGINES:
        raise UserError(f"`engine` was '{name}'; expected {' or '.join(ENGINES)}.")
    if name == "local":
        if address is not None:
            raise UserError(f"`address` was '{address}', but the engine is local; expected the engine ray.")
        yield LOCAL
        return
    if find_spec("ray") is None:
        raise UserError('the engine ray needs the package ray: pip install "tinylm[ray]".')
    import ray

    joined_before = ray.is_initialized()
    if not joined_before:
        _join(address)
    elif address is not None:
        raise UserError(f"`address` was '{address}', but this process has joined a Ray already.")
    try:
        with ExitStack() as marks:
            yield RayEngine([marks.enter_context(marked(folder.resolve())) for folder in shared])
    finally:
        if not joined_before:
            ray.shutdown()


def _join(address: str | None) -> None:
    """Join the Ray at an address or on this machine, or start one."""
    import ray

    named = address or os.environ.get("RAY_ADDRESS")
    if named not in (None, "auto"):
        _check(named)
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(named or "auto")
    except Exception as error:  # of several kinds, some of them gRPC's
        if named is not None or not isinstance(error, ConnectionError):
            reason = " ".join(str(error).split())
            raise UserError(
                f"no Ray could be joined at the `address` '{named or 'auto'}': {reason}"
            ) from error
        _start()
    finally:
        if main:  # Ray takes this signal for itself
            signal.signal(signal.SIGTERM, before)


def _start() -> None:
    """Start a Ray on this machine."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    try:
        ray.init("local", num_cpus=cores(), include_dashboard=False)
    except Exception as error:  # Ray gives itself 30 seconds, which a busy machine may exceed
        ray.shutdown()
        reason = " ".join(str(error).split())
        raise UserError(f"no Ray could be started on this machine: {reason}") from error


def _check(address: str) -> None:
    """Refuse an address at which nothing can be reached; Ray would try for minutes and end this process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"no Ray could be reached at the `address` '{address}' ({error}); expected auto, HOST:PORT or"
            " ray://HOST:PORT of one that runs."
        ) from error


class RayEngine:
    """The Ray that this process has joined.

    Args:
        marks: files by which a node tells that it reaches the folders that are shared.
    """

    def __init__(self, marks: Sequence[Path]) -> None:
        self._here = Path.cwd()
        self._marks = list(marks)

    def places(self, wanted: int | None = None, gpu: float = 0) -> int:
        """As many as are wanted, which lets a cluster grow, or as there is room for now."""
        import ray

        there = ray.cluster_resources()
        room = there.get("CPU", 0.0)
        if gpu:
            room = min(room, there.get("GPU", 0.0) / gpu)
        if not room:
            raise UserError(
                f"the Ray cluster has {there.get('CPU', 0):.0f} cores and {there.get('GPU', 0):.0f} GPUs;"
                " expected one of what the jobs need, at least."
            )
        return wanted or int(room)

    @contextmanager
    def workers(self, most: int, gpu: float = 0) -> Iterator[Submit]:
        """Ray's workers, which have this process's working folder, where they reach it, and its cache."""
        import ray

        environment = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")  # PyTorch, tokenizers
        environment["TINYLM_CACHE"] = str(cache_folder().resolve())
        if data := os.environ.get("TINYLM_DATA"):
            environment["TINYLM_DATA"] = str(Path(data).resolve())
        task = ray.remote(_work).options(
            num_cpus=1, num_gpus=gpu, max_retries=RETRIES, runtime_env={"env_vars": environment}
        )
        running: set[Any] = set()
        stopped = threading.Event()

        def run(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
            # Plain pickles: Ray would give arrays that cannot be written to.
            reference = task.remote(pickle.dumps((function, arguments)), self._here, self._marks)
            running.add(reference)
            if stopped.is_set():
                ray.cancel(reference, force=True)
            try:
                return pickle.loads(ray.get(reference))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise BrokenProcessPool(str(error)) from error
            finally:
                running.discard(reference)
                bars.update(bar, advance=1)

        # A thread waits for each job that is under way.
        with progress_bars() as bars, ThreadPoolExecutor(most) as pool:
            submitted, bar = 0, bars.add("Ray", 0)

            def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
                nonlocal submitted
                submitted += 1
                bars.update(bar, total=submitted)
                return pool.submit(run, function, arguments)

            try:
                yield submit
            except BaseException:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for reference in list(running):
                    ray.cancel(reference, force=True)
                raise


# --- in a worker ---


def _work(payload: bytes, here: Path, marks: Sequence[Path]) -> bytes:
    """One job, as `worker_processes` would do it: on one thread, in the same folder."""
    for mark in marks:
        if not mark.exists():
            raise UserError(
                f"the node {platform.node()} does not share the folder {mark.parent}; expected the same"
                " folder on all nodes (TINYLM_CACHE names the cache folder)."
            )
    with suppress(OSError):  # not there: then only paths that do not depend on it lead anywhere
        os.chdir(here)
    limit_cores(1)
    forward_progress(lambda message: None)
    function, arguments = pickle.loads(payload)
    return pickle.dumps(function(*arguments))
