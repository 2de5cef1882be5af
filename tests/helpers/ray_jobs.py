"""Jobs for the workers of a Ray, some of which kill the process that they run in."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.cli.predict import _found_by_worker
from tinylm.errors import UserError
from tinylm.fit.member import Job, TrainedMember, train_member
from tinylm.paper.execute import Outcome, run_cell
from tinylm.paper.results import Folder, Results
from tinylm.system.cores import cores
from tinylm.text.corpus import encode_batch
from tinylm.text.store import TokenIds


def seen(array: np.ndarray) -> tuple[int, int, Path, bool]:
    """Process, cores and folder of a worker, and whether it can write to its arguments."""
    return os.getpid(), cores(), Path.cwd(), array.flags.writeable


def refuse(number: int) -> None:
    raise UserError(f"number {number} is not wanted.")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(log: Path) -> None:
    """Leave this process's number in a file, and kill it if it is the first there."""
    first = not log.exists()
    with log.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if first:
        die()


def cell_killed_once(cell: Any, preset: str, folder: Folder, device: Any) -> Outcome:
    """`run_cell`; the first worker is killed when its cell is computed and half stored.

    Args:
        folder: of the results; a URL begins with `local://`.
    """
    write, log = Results.write, Path(str(folder).removeprefix("local://")) / "killed.partial"

    def killed(self: Results, key: str, *content: Any) -> None:
        die_once(log)
        write(self, key, *content)

    Results.write = killed  # type: ignore[method-assign]
    try:
        return run_cell(cell, preset, folder, device)
    finally:
        Results.write = write  # type: ignore[method-assign]


def batch_killed_once(model: Path, texts: list[str]) -> Any:
    die_once(model / "killed.partial")
    return _found_by_worker(model, texts)


def texts_killed_once(folder: Path, texts: list[str], max_tokens: int) -> TokenIds:
    die_once(folder.parent / "killed.partial")
    return encode_batch(folder, texts, max_tokens)


def member_killed_once(job: Job) -> TrainedMember:
    trained = train_member(job)
    assert job.cache is not None
    die_once(job.cache.parent / "killed.partial")
    return trained
