"""Which cell runs when: many side by side, in few minutes, without two that wait for each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from tinylm.bench.recipe.data import linear
from tinylm.bench.recipe.runs import (
    DONE,
    LEFT,
    Cell,
    Runs,
    prepared,
    run_cell,
    run_pretraining,
    texts_of,
    weights_name,
)
from tinylm.errors import UserError
from tinylm.system.cores import cores
from tinylm.system.files import write_text
from tinylm.system.paths import cached
from tinylm.system.processes import run_side_by_side, threads, worker_processes
from tinylm.system.progress import progress_bars

IGNORED = "cells/\n.locks/\n*.damaged\n*.partial\n"


@dataclass(frozen=True)
class Summary:
    """What a call did.

    Attributes:
        done: cells that it ran.
        found: cells that were there.
        left: cells that it did not begin, or that another call is at.
        failed: a sentence for each cell that failed.
    """

    done: int
    found: int
    left: int
    failed: list[str]


def run_cells(
    cells: Sequence[Cell], folder: Path, jobs: int | None = None, minutes: float | None = None
) -> Summary:
    """Run the cells that are not in a results folder yet.

    Args:
        cells: in the order in which they begin.
        folder: of the results; made if need be.
        jobs: trainings at a time, as many as there are cores by default; 1 trains in this process.
        minutes: what has not begun by then is left.
    """
    deadline = time.time() + 60 * minutes if minutes is not None else float("inf")
    results = Runs(folder)
    todo = [cell for cell in cells if results.read(cell.key) is None]
    for cell in todo:  # a setting that cannot be is refused before anything is trained
        cell.variant.recipe_for(cell.task)
    if not todo:
        return Summary(0, len(cells), 0, [])
    write_text(folder / ".gitignore", IGNORED)
    for variant in {texts_of(cell.variant): cell.variant for cell in todo}.values():
        prepared(variant)
    run_side_by_side(linear, [(task,) for task in dict.fromkeys(cell.task for cell in todo)], jobs)
    most = min(jobs or cores(), len(todo))
    try:
        if most == 1:
            with threads(1):
                ends = [run_cell(cell, folder, deadline) for cell in todo]
        else:
            ends = _side_by_side(todo, folder, deadline, most)
    finally:
        results.pack()
    failed = [end for end in ends if end not in (DONE, LEFT)]
    return Summary(ends.count(DONE), len(cells) - len(todo), ends.count(LEFT), failed)


class Queue:
    """Cells in their order, each behind the pre-training that it begins from.

    Args:
        cells: that are to be run.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.waiting = list(cells)
        # Pre-trainings by name, under way or not begun.
        names = {weights_name(cell.variant, cell.seed) for cell in cells if cell.variant.pretrained}
        self.missing = {name for name in names if not cached(name).is_dir()}
        self.begun: set[str] = set()

    def next(self) -> tuple[Cell, str] | None:
        """The first cell that can begin, or that whose pre-training can, and then the name of that.

        None where all that is waiting waits for a pre-training that is under way.
        """
        for cell in self.waiting:
            name = weights_name(cell.variant, cell.seed)
            if name not in self.missing:
                self.waiting.remove(cell)
                return cell, ""
            if name not in self.begun:
                self.begun.add(name)
                return cell, name
        return None

    def pretrained(self, name: str, end: str) -> list[str]:
        """A pre-training has ended; returns how the cells end that cannot begin from it."""
        self.missing.discard(name)
        if end == DONE:
            return []
        lost = [cell for cell in self.waiting if weights_name(cell.variant, cell.seed) == name]
        self.waiting = [cell for cell in self.waiting if cell not in lost]
        return [end] * len(lost)


def _side_by_side(cells: Sequence[Cell], folder: Path, deadline: float, most: int) -> list[str]:
    """Run cells, so many trainings at a time; returns how each ended, see `run_cell`."""
    queue, ends = Queue(cells), list[str]()
    running: dict[Future[str], str] = {}  # and the name of what is pre-trained
    with progress_bars() as bars, worker_processes(most) as submit:
        bar = bars.add("cells", len(cells))
        while queue.waiting or running:
            if time.time() >= deadline:
                ends += [LEFT] * len(queue.waiting)
                queue.waiting.clear()
            while len(running) < most and (found := queue.next()):
                cell, name = found
                future = submit(run_pretraining, cell) if name else submit(run_cell, cell, folder, deadline)
                running[future] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                try:
                    end = future.result()
                except BrokenProcessPool as error:
                    raise UserError(
                        "a process that was at work has been killed, perhaps for want of memory; run the same"
                        " command again with fewer jobs."
                    ) from error
                ends += queue.pretrained(name, end) if name else [end]
                bars.update(bar, completed=len(ends))
    return ends
