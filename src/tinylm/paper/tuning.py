"""Search of a table's learning rates and weight decays of fine-tuning (appendix, section 3).

The paper gives the values that its own search found; models of another size need others. Every row is
searched twice where a gap is measured, with pre-training and without. An attempt fine-tunes as the row's
first trial does and is judged by validation rows, which are training rows that are held out; test rows
are never read. The first attempts are the preset's values and the paper's, further ones are chosen by
Optuna; an attempt ends after an epoch in which it is worse than the median of the others at that epoch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from rich.console import Console

from tinylm.errors import UserError
from tinylm.fit.early_stopping import finetune_until_best
from tinylm.ops.device import CPU
from tinylm.paper.cells import Cell, FinetuningCell, Pretraining
from tinylm.paper.data import materials
from tinylm.paper.execute import start_of
from tinylm.paper.preset import with_hyperparameters
from tinylm.paper.results import Results
from tinylm.paper.runner import Prepared, gpu_share, run_cells, trained
from tinylm.paper.spec import Finetuning, panel_name
from tinylm.paper.tuned import values_words
from tinylm.system.files import key_of, locked
from tinylm.system.processes import LOCAL, Engine

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

ATTEMPTS = 20
LEARNING_RATES = (1e-5, 1e-2)
WEIGHT_DECAYS = (0.0, 0.1)
RANDOM_ATTEMPTS = 8  # before Optuna learns from the earlier ones
HELD_OUT = 0.1  # of the training rows, where the preset keeps none for validation
Arm = Literal["finetune", "without"]


@dataclass(frozen=True)
class Search:
    """The search for one row, with or without pre-training.

    Attributes:
        table, panel, row: where it belongs.
        arm: the field of the row that it fills: `finetune`, or `without` for no pre-training.
        cell: the trial that its attempts repeat with other values.
        starting_points: values that are tried first, by the name of their author.
    """

    table: str
    panel: str
    row: str
    arm: Arm
    cell: FinetuningCell
    starting_points: Mapping[str, Finetuning]

    @cached_property
    def key(self) -> str:
        """Hash of what an attempt depends on beside the values: rows that agree share a search."""
        phase = self.cell.recipe.finetune.model_dump(mode="json")
        del phase["learning_rate"], phase["weight_decay"], phase["matrix_learning_rate"]
        return key_of(self.cell.identity | {"kind": "search", "finetune": phase})

    @property
    def label(self) -> str:
        """Shown in messages."""
        plain = ", no pre-training" if self.arm == "without" else ""
        return f"{panel_name(self.table, self.panel)} {self.row}{plain}"


@dataclass(frozen=True)
class Attempt:
    """What one attempt found.

    Attributes:
        values: what was tried.
        accuracy: on the validation rows.
        pruned: whether it was ended early.
        busy: another command is at this search; nothing was tried.
        error: why the training broke off.
    """

    values: Finetuning | None = None
    accuracy: float = 0.0
    pruned: bool = False
    busy: bool = False
    error: str = ""


def searches(prepared: Prepared, rows: Sequence[str] | None = None) -> list[Search]:
    """All searches of tables, or those of these rows; rows with a reduced vocabulary have none."""
    found = []
    for plan in prepared.plans:
        for panel in plan.panels:
            for row in panel.rows:
                if rows is not None and row.row.name not in rows:
                    continue
                paper = {
                    "finetune": row.row.finetune or panel.panel.finetune,
                    "without": row.row.without or panel.panel.without,
                }
                for arm, cells in (("finetune", row.trials), ("without", row.without)):
                    if not cells or cells[0].reduced:  # has token ids of its own
                        continue
                    phase = cells[0].recipe.finetune
                    ours = Finetuning(learning_rate=phase.learning_rate, weight_decay=phase.weight_decay)
                    points = {"preset": ours, "paper": paper[arm]}
                    place = (plan.name, panel.panel.name, row.row.name)
                    found.append(Search(*place, arm, cells[0], points))  # type: ignore[arg-type]
    return found


def run_searches(
    prepared: Prepared,
    wanted: Sequence[Search],
    attempts: int = ATTEMPTS,
    device: torch.device = CPU,
    workers: int | None = None,
    engine: Engine = LOCAL,
) -> list[str]:
    """Make attempts until every search has so many, and store what they found.

    Pre-trainings that are missing are run first. Attempts are stored as they end, so the same call
    continues an interrupted one.

    Args:
        prepared: the tables.
        wanted: see `searches`.
        attempts: of each search, those of earlier calls included.
        device: where models are trained.
        workers: attempts at a time; by default one per core, and GPU_WORKERS on a GPU.
        engine: what makes them.

    Returns:
        A sentence for each pre-training or attempt that failed.
    """
    console = Console(stderr=True)
    prepared.store()
    results = prepared.results
    preset = prepared.preset.model_dump_json()
    starts = {search.cell.start.key: search.cell.start for search in wanted
              if isinstance(search.cell.start, Pretraining)}  # fmt: skip
    missing: list[Cell] = [start for start in starts.values() if not trained(start, results)]
    try:
        failed = run_cells(missing, preset, results, console, device, workers, engine) if missing else []
        different = {search.key: search for search in wanted if _can_start(search, results)}
        failed += _run(list(different.values()), attempts, preset, results, console, device, workers, engine)
        for table, panel in dict.fromkeys((search.table, search.panel) for search in wanted):
            _store(results, table, panel, [one for one in wanted if (one.table, one.panel) == (table, panel)])
    finally:
        results.pack()
    return failed


def _can_start(search: Search, results: Results) -> bool:
    start = search.cell.start
    return not isinstance(start, Pretraining) or trained(start, results)


def _run(
    wanted: Sequence[Search],
    attempts: int,
    preset: str,
    results: Results,
    console: Console,
    device: torch.device,
    workers: int | None,
    engine: Engine,
) -> list[str]:
    """Run attempts, one after the other in each search and several searches at a time."""
    gpu = gpu_share(device)
    most = engine.places(workers, gpu)
    left = {search.key: max(0, attempts - _finished(results, search)) for search in wanted}
    waiting = deque(search for search in wanted if left[search.key])
    total = sum(left.values())
    console.print(f"{len(wanted)} searches, {total} attempts to make.", highlight=False)
    if not total:
        return []
    failed: list[str] = []
    done, spent, worked = 0, 0.0, 0.0
    with engine.workers(min(len(waiting), most), gpu) as submit:
        running: dict[Future[Any], tuple[Search, float]] = {}
        while waiting or running:
            while waiting and len(running) < most:
                search = waiting.popleft()
                job = submit(attempt, search, preset, results.folder, device)
                running[job] = (search, time.monotonic())
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                search, start = running.pop(future)
                outcome: Attempt = future.result()
                if outcome.busy:
                    failed.append(f"{search.label}: another command is searching it.")
                    left[search.key] = 0
                    continue
                seconds = time.monotonic() - start
                done, spent, worked = done + 1, spent + seconds, worked + search.cell.work
                left[search.key] -= 1
                if left[search.key]:
                    waiting.append(search)
                if outcome.error:
                    failed.append(f"{search.label}: {outcome.error}")
                more = sum(left[other.key] * other.cell.work for other in wanted)
                console.print(
                    f"[{done}/{total}] {search.label}: {_words(outcome)} ({seconds:.0f} s);"
                    f" about {more * spent / worked / most / 60:.0f} min left",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
    return failed


def _words(outcome: Attempt) -> str:
    assert outcome.values is not None
    ended = ", ended early" if outcome.pruned else ""
    return f"{values_words(outcome.values)}: validation accuracy {outcome.accuracy:.3f}{ended}"


def attempt(search: Search, preset: str, folder: Path, device: torch.device = CPU) -> Attempt:
    """Make one attempt and store it; see `run_cell` for the arguments."""
    import optuna  # belongs to an extra

    results = Results(folder)
    with locked(results.lock(search.key), wait=False) as held:
        if not held:
            return Attempt(busy=True)
        study = _study(results, search)
        _resume(study, search)
        rates, decays = _space(search)
        trial = study.ask(
            {
                "learning_rate": optuna.distributions.FloatDistribution(*rates, log=True),
                "weight_decay": optuna.distributions.FloatDistribution(*decays),
            }
        )
        values = Finetuning.model_validate(trial.params)
        source = materials(preset)
        epoch, pruned = 0, False

        def is_worse(score: float) -> bool:
            nonlocal epoch, pruned
            epoch += 1
            trial.report(score, epoch)
            pruned = trial.should_prune()
            return pruned

        recipe = with_hyperparameters(search.cell.recipe, values)
        try:
            log = finetune_until_best(
                source.validation_task(search.cell.task, HELD_OUT),
                source.tokenizer,
                start_of(search.cell, results),
                recipe,
                seed=search.cell.seed,
                label=search.label,
                patience=search.cell.patience or recipe.finetune.epochs,
                watch=is_worse,
                device=device,
            ).log
        except UserError as error:  # the loss is no longer a number
            study.tell(trial, 0.0)
            return Attempt(values, error=str(error))
        if pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return Attempt(values, log.scores[-1], pruned=True)
        # As in the table: of the epoch that is kept with patience, else of the last.
        score = log.scores[log.kept - 1] if search.cell.patience else log.scores[-1]
        study.tell(trial, score)
        return Attempt(values, score)


def _space(search: Search) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ranges of both values, wide enough for the starting points."""
    points = search.starting_points.values()
    rates = [*LEARNING_RATES, *(point.learning_rate for point in points)]
    decays = [*WEIGHT_DECAYS, *(point.weight_decay for point in points)]
    return (min(rates), max(rates)), (min(decays), max(decays))


def _study(results: Results, search: Search) -> Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = results.search(search.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))),
        study_name=search.key,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        load_if_exists=True,
    )
    # Numbered, so that an attempt is the same whether or not the search was interrupted before it.
    study.sampler = optuna.samplers.TPESampler(
        n_startup_trials=RANDOM_ATTEMPTS, seed=len(_of(study, "COMPLETE", "PRUNED"))
    )
    return study


def _resume(study: Study, search: Search) -> None:
    """Put in line what is to be tried first: the starting points, or what an interruption cut off."""
    if not study.trials:
        for point in dict.fromkeys(search.starting_points.values()):
            study.enqueue_trial(point.model_dump())
    for trial in _of(study, "RUNNING"):  # nobody is at it: the search is locked
        study.tell(trial.number, state=_state("FAIL"))
        if len(trial.params) == 2:
            study.enqueue_trial(trial.params)


def _of(study: Study, *states: str) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=tuple(_state(name) for name in states))


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _finished(results: Results, search: Search) -> int:
    """Attempts of a search that were made before."""
    return len(_of(_study(results, search), "COMPLETE", "PRUNED"))


def _store(results: Results, table: str, panel: str, wanted: Sequence[Search]) -> None:
    """Store what the searches of a panel found, beside what earlier ones have."""
    rows: dict[str, Any] = (results.tuning(table, panel) or {"rows": {}})["rows"]
    for search in wanted:
        study = _study(results, search)
        complete = _of(study, "COMPLETE")
        if not complete:
            continue
        tried = {Finetuning.model_validate(trial.params): trial.value for trial in complete}
        points = {name: values.model_dump() | {"accuracy": tried.get(values)}
                  for name, values in search.starting_points.items()}  # fmt: skip
        rows.setdefault(search.row, {})[search.arm] = points | {
            "found": study.best_trial.params | {"accuracy": study.best_value},
            "attempts": len(_of(study, "COMPLETE", "PRUNED")),
            "pruned": len(_of(study, "PRUNED")),
        }
    if rows:
        results.write_tuning(table, panel, {"rows": rows})
