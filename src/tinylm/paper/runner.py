"""Run the cells that a table needs, on all cores, and only those that have not been run yet.

A pre-training comes before the fine-tunings that begin from it; they follow as soon as its
weights are there. What is finished is found by its key, whichever table needed it. Lock
files, which vanish with the process that holds them, keep two runners from the same cell.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from tinylm.errors import UserError
from tinylm.ops.device import CPU, processor_of
from tinylm.paper.cells import (
    BaselineCell,
    Cell,
    FinetuningCell,
    Planner,
    Pretraining,
    TablePlan,
)
from tinylm.paper.committees import store_committees
from tinylm.paper.data import Materials, materials
from tinylm.paper.execute import run_cell
from tinylm.paper.latencies import store_latencies
from tinylm.paper.preset import Preset, load_preset
from tinylm.paper.results import Folder, Results, open_results
from tinylm.paper.spec import load_table, table_names
from tinylm.paper.tuned import tuned_table
from tinylm.system.processes import LOCAL, Engine

BUSY_SECONDS = 2.0  # between two looks at a cell that another runner holds
# Cells side by side on a GPU: one alone does not fill it, and each of the paper's size takes 4 GB of it.
GPU_WORKERS = 4


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        done: cells computed now.
        found: cells that were there.
        failed: a sentence for each cell that failed.
        notes: rows left empty, files set aside and the like.
    """

    done: int
    found: int
    failed: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Prepared:
    """Tables whose cells are known.

    Attributes:
        preset_name: see `preset_names`.
        preset: its content, with the corpus that replaces its own.
        jobs: cells that are to be run, in their order.
        found: number of the cells that are stored.
    """

    preset_name: str
    preset: Preset
    plans: list[TablePlan]
    results: Results
    source: Materials
    jobs: list[Cell]
    found: int

    def hours(self, jobs: Sequence[Cell] | None = None) -> float | None:
        """Hours that one core needs for jobs (all of them by default), judged by the cells that are stored.

        A cell is compared with those of its kind and architecture, or else with all of its kind; None
        where a kind has none. Cells that another processor or a GPU trained do not count.
        """
        here = processor_of(CPU)
        taken: dict[tuple[object, ...], list[tuple[float, float]]] = {}  # seconds and work
        for cell in self._cells():
            stored = self.results.read(cell.key)
            if stored is None or isinstance(cell, BaselineCell):
                continue
            if stored.get("device", here) == here:
                for group in ((type(cell), cell.config), (type(cell),)):
                    taken.setdefault(group, []).append((stored["seconds"], cell.work))
        pace = {group: sum(s for s, _ in of) / sum(w for _, w in of) for group, of in taken.items()}
        seconds = 0.0
        for job in self.jobs if jobs is None else jobs:
            if isinstance(job, BaselineCell):
                continue  # seconds
            found = pace.get((type(job), job.config)) or pace.get((type(job),))
            if found is None:
                return None
            seconds += job.work * found
        return seconds / 3600

    def store(self) -> None:
        """Store the plans, which name the cells of each row and hold its token counts."""
        self.results.begin(self.preset_name)
        for plan in self.plans:
            self.results.write_plan(plan.name, plan.as_json(self.preset_name, self.preset))
        self.results.pack()

    def _cells(self) -> list[Cell]:
        """All cells, with what they begin from, each once."""
        cells: dict[str, Cell] = {}
        for plan in self.plans:
            for cell in plan.cells():
                cells[cell.key] = cell
                start = cell.start if isinstance(cell, FinetuningCell) else None
                if isinstance(start, Pretraining):
                    cells[start.key] = start
        return list(cells.values())


def plan_tables(
    names: Sequence[str],
    *,
    preset_name: str,
    folder: Folder,
    trials: int | None = None,
    rows: Sequence[str] | None = None,
    panels: Sequence[str] | None = None,
    corpus: str | None = None,
    tuned: bool = False,
) -> Prepared:
    """Choose every W_S, count its tokens and find the cells of the rows; stores and trains nothing.

    Args:
        names: tables of the paper, or spec files of the user's own; `all` stands for every table that
            comes with the package.
        preset_name: see `preset_names`.
        folder: of the results: a path, or a URL such as `s3://bucket/path`.
        trials: of each row; the preset's when None.
        rows: only the rows of these names are to be run.
        panels: only the panels of these names are to be run.
        corpus: a corpus in place of the preset's, as `open_corpus` takes it.
        tuned: with the hyper-parameters that `tinylm paper tune` found, as tables of their own.

    Raises:
        UserError: an unknown table, row, panel or preset, a bad spec, a missing data set, a folder that
            holds other results or cannot be reached, or no hyper-parameters found.
    """
    preset = load_preset(preset_name)
    if corpus is not None:
        preset = preset.model_copy(update={"corpus": corpus})
    tables = dict(load_table(name) for name in _expanded(names, preset))
    results = open_results(folder)
    results.check(preset_name)
    results.refresh()
    if tuned:
        preset = preset.model_copy(update={"spec_hyperparameters": True})
        tables = dict(tuned_table(name, table, results) for name, table in tables.items() if table.panels)
    every = [panel for table in tables.values() for panel in table.panels]
    _check_known("row", rows, [row.name for panel in every for row in panel.rows], tables)
    _check_known("panel", panels, [panel.name for panel in every if panel.name], tables)
    source = materials(preset.model_dump_json())
    planner = Planner(preset, source, trials or preset.trials)
    plans = [planner.table(name, table) for name, table in tables.items()]
    wanted = [cell for plan in plans for cell in plan.cells(rows, panels)]
    jobs = _jobs(wanted, results)
    found = {cell.key for cell in wanted} - {job.key for job in jobs}
    return Prepared(preset_name, preset, plans, results, source, jobs, len(found))


def run_tables(
    prepared: Prepared, device: torch.device = CPU, workers: int | None = None, engine: Engine = LOCAL
) -> Summary:
    """Store the plans of tables and run their cells, training on `device`.

    Args:
        prepared: from `plan_tables`.
        device: where models are trained.
        workers: cells at a time; by default one per core, and GPU_WORKERS on a GPU.
        engine: what runs the cells.

    Raises:
        UserError: a process died, or the results folder cannot be used.
    """
    console = Console(stderr=True)
    prepared.store()
    plans, jobs, results = prepared.plans, prepared.jobs, prepared.results
    console.print(
        f"{', '.join(plan.name for plan in plans)} with preset {prepared.preset_name}:"
        f" {len(jobs)} cells to run, {prepared.found} found in {results.folder}.",
        highlight=False,
        soft_wrap=True,
    )
    try:
        store_latencies(plans, results, prepared.source)  # first, while nothing else runs
        preset = prepared.preset.model_dump_json()
        failed = run_cells(jobs, preset, results, console, device, workers, engine) if jobs else []
        notes = [f"{plan.name} {row.row.name}: {row.note}" for plan in plans for panel in plan.panels
                 for row in panel.rows if row.note]  # fmt: skip
        results.refresh()
        notes += store_committees(results)
    finally:  # also of an interrupted run: what is finished can be committed
        results.pack()
    return Summary(len(jobs) - len(failed), prepared.found, failed, notes + results.notes)


def _expanded(names: Sequence[str], preset: Preset) -> list[str]:
    """Names with `all` and the tables that an analysis uses written out, each once."""
    out: list[str] = []
    every = [name for name in table_names() if name not in preset.leaves_out]
    for name in names:
        for each in every if name == "all" else [name]:
            out += [*load_table(each)[1].uses, each]
    return list(dict.fromkeys(out))


def _check_known(what: str, names: Sequence[str] | None, known: Sequence[str], tables: Iterable[str]) -> None:
    """Raises UserError where one of the names of rows or panels is not known."""
    for name in names or ():
        if name not in known:
            listed = ", ".join(dict.fromkeys(known)) or "none with a name"
            raise UserError(f"{what} '{name}' is unknown; {', '.join(tables)} has {listed}.")


def _jobs(wanted: Sequence[FinetuningCell | BaselineCell], results: Results) -> list[Cell]:
    """Cells to run, each once, with what they begin from, in the order in which they should begin.

    The first trial of everything comes before the second of anything, so that a run that is
    stopped halfway has all tables with fewer trials.
    """
    jobs: dict[str, Cell] = {}
    for cell in wanted:
        if cell.key in jobs or results.has(cell.key):
            continue
        start = cell.start if isinstance(cell, FinetuningCell) else None
        if isinstance(start, Pretraining) and not trained(start, results):
            jobs.setdefault(start.key, start)
        jobs[cell.key] = cell
    return sorted(jobs.values(), key=_wave)


def _wave(cell: Cell) -> int:
    """Baselines, then the first trial of each row and what it begins from, then the second, ..."""
    if isinstance(cell, BaselineCell):
        return -1
    return cell.number if isinstance(cell, Pretraining) else cell.trial


def trained(cell: Pretraining, results: Results) -> bool:
    """Whether a pre-training is finished and its weights are there."""
    return results.has(cell.key) and results.has_weights(cell.key)


def gpu_share(device: torch.device) -> float:
    """The share of a GPU that one training has."""
    return 0.0 if device.type == "cpu" else 1 / GPU_WORKERS


def run_cells(
    jobs: list[Cell],
    preset: str,
    results: Results,
    console: Console,
    device: torch.device,
    workers: int | None,
    engine: Engine,
) -> list[str]:
    """Run cells side by side; returns a sentence for each that failed."""
    gpu = gpu_share(device)
    most = min(len(jobs), engine.places(workers, gpu))
    waiting = list(jobs)
    done, spent, worked = 0, 0.0, 0.0  # cells, their seconds, their multiplications
    unfinished = {job.key for job in jobs if isinstance(job, Pretraining)}
    failed: dict[str, str] = {}
    with engine.workers(most, gpu) as submit:
        running: dict[Future[Any], tuple[Cell, float]] = {}
        held_until: dict[str, float] = {}
        while waiting or running:
            for job in _ready(waiting, unfinished, failed, held_until, most - len(running)):
                waiting.remove(job)
                running[submit(run_cell, job, preset, results.folder, device)] = (job, time.monotonic())
            for job in [job for job in waiting if _start_key(job) in failed]:
                waiting.remove(job)
                failed[job.key] = f"{job.label}: not run, as its pre-training failed."
            if not running:
                time.sleep(BUSY_SECONDS)
                continue
            for future in wait(running, timeout=BUSY_SECONDS, return_when=FIRST_COMPLETED).done:
                job, start = running.pop(future)
                try:
                    outcome = future.result()
                except (BrokenProcessPool, torch.AcceleratorError) as error:
                    happened = "a process died, perhaps for want of memory"
                    if isinstance(error, torch.AcceleratorError):
                        happened = f"the GPU failed ({str(error).splitlines()[0]})"
                    raise UserError(
                        f"{job.label}: {happened}; finished cells are stored in {results.folder}, so start"
                        " the same command again to resume."
                    ) from error
                if outcome.busy:
                    held_until[job.key] = time.monotonic() + BUSY_SECONDS
                    waiting.append(job)
                    continue
                seconds = time.monotonic() - start
                done += 1
                spent, worked = spent + seconds, worked + job.work
                unfinished.discard(job.key)
                if outcome.error:
                    failed[job.key] = f"{job.label}: {outcome.error}"
                left = sum(other.work for other in [*waiting, *(each for each, _ in running.values())])
                minutes = left * spent / worked / most / 60 if worked else None
                remaining = "" if minutes is None else f"; about {minutes:.0f} min left"
                console.print(
                    f"[{done}/{len(jobs)}] {job.label}: {outcome.error or outcome.figures}"
                    f" ({seconds:.0f} s){remaining}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
    return list(failed.values())


def _ready(
    waiting: list[Cell],
    unfinished: set[str],
    failed: dict[str, str],
    held_until: dict[str, float],
    most: int,
) -> list[Cell]:
    """The next cells whose pre-training is there; their order is kept."""
    now = time.monotonic()
    ready = [
        job
        for job in waiting
        if _start_key(job) not in unfinished | failed.keys() and held_until.get(job.key, 0) <= now
    ]
    return ready[: max(most, 0)]


def _start_key(job: Cell) -> str | None:
    return job.start.key if isinstance(job, FinetuningCell) and job.start else None
