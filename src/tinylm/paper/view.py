"""Stored results of a table, read back without any data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.paper.results import Results
from tinylm.paper.spec import Found, Panel, Row, Table, load_table, panel_name, table_names
from tinylm.paper.statistics import difference
from tinylm.report.format import Interval
from tinylm.text.datasets import DATASETS


@dataclass(frozen=True)
class RowResult:
    """One row: the paper's values and ours.

    Attributes:
        spec: the row of the spec.
        architecture: as it was trained here.
        layer_count: of it.
        key: of the cell of its first trial, finished or not; empty where the row has none.
        parameters: of it; None where neither plan nor pre-training has counted them.
        by_trial: accuracy of each finished trial, after the last epoch, by its number.
        best: the same after the epoch that was best on test data, the paper's way; empty where the
            test data was evaluated at the end alone.
        without: accuracy of each finished trial without pre-training; empty where no gap is measured.
        start_by_trial: the key of the pre-training that a trial began from, where it began from one.
        per_label: mean accuracy of each label.
        coverage: W_S, T_W, T_C, T_M and more; empty without pre-training.
        mean_tokens: of a paragraph of W_S.
        absent_share: of the tokens of W_S, those that the task has not.
        loss: of the last epoch of each pre-training.
        single_heads: see `heads.py`, of each trial that measured them.
        planned: number of trials that belong to the row.
        seconds: of its first trial with its pre-training, so that rows whose further trials another machine
            trained can be compared; None where none is finished.
        note: why the row is empty, if it must be.
    """

    spec: Row
    architecture: str
    layer_count: int
    key: str
    parameters: int | None
    by_trial: dict[int, float]
    best: list[float]
    without: list[float]
    start_by_trial: dict[int, str]
    per_label: np.ndarray
    coverage: dict[str, Any]
    mean_tokens: float | None
    absent_share: float | None
    loss: list[float]
    single_heads: list[dict[str, Any]]
    planned: int
    seconds: float | None
    note: str

    @property
    def paper(self) -> Found:
        """What the paper reports."""
        return self.spec.paper

    @property
    def accuracy(self) -> list[float]:
        """Of each finished trial."""
        return list(self.by_trial.values())

    @property
    def arm(self) -> list[float]:
        """Accuracy of each pre-training, the mean of the trials that began from it."""
        return independent(self.by_trial, self)

    @property
    def gap(self) -> float | None:
        """Mean accuracy with minus without pre-training; None where an arm is missing."""
        if not self.coverage or not self.arm or not self.without:
            return None
        return float(np.mean(self.arm) - np.mean(self.without))

    @property
    def gap_interval(self) -> Interval | None:
        """The gap with its interval; None where it has none."""
        return difference(self.arm, self.without) if self.coverage else None

    @property
    def w_s(self) -> int:
        """W_S as it was here."""
        return int(self.coverage.get("paragraphs", 0))


@dataclass(frozen=True)
class PanelResult:
    """One panel.

    Attributes:
        tuning: what `tinylm paper tune` found for its rows; empty where nothing was searched.
    """

    table: str
    spec: Panel
    task: dict[str, Any]
    rows: list[RowResult]
    baselines: dict[str, float]
    committee: dict[str, Any] | None
    latency: dict[str, Any] | None
    tuning: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as table3(a)."""
        return panel_name(self.table, self.spec.name)

    @property
    def heading(self) -> str:
        """Such as table3(a): FewRel, 10 labels."""
        return f"{self.name}: {self.task_name}"

    @property
    def task_name(self) -> str:
        """Such as FewRel, 64 labels: tasks of other labels have other gaps."""
        name = self.task["name"]
        title = DATASETS[name].title if name in DATASETS else name
        return f"{title}, {len(self.task['labels'])} labels"

    @property
    def committee_layers(self) -> int:
        """The paper's measure of the committee's latency: layers of members side by side."""
        return max(row.layer_count for row in self.with_role("member"))

    def with_role(self, role: str) -> list[RowResult]:
        """Rows that are members, or the deep model."""
        return [row for row in self.rows if row.spec.role == role]


@dataclass(frozen=True)
class TableResult:
    """One table.

    Attributes:
        corpus: number of paragraphs, their mean tokens and the vocabulary; empty in earlier plans.
    """

    name: str
    spec: Table
    panels: list[PanelResult]
    knobs: dict[str, Any]
    preset: str
    corpus: dict[str, Any]


@dataclass(frozen=True)
class Effort:
    """What one processor or GPU has trained.

    Attributes:
        device: its name.
        cells: their number.
        seconds: of all of them, one after the other.
    """

    device: str
    cells: int
    seconds: float


def independent(by_trial: Mapping[int, float], *rows: RowResult) -> list[float]:
    """One mean for all trials that share a pre-training, as they are not independent of each other.

    Args:
        by_trial: a figure of each trial.
        rows: those that the figure is made of. Their trials take turns in the same way, so the first row
            that has been pre-trained tells which trials belong together.
    """
    starts = next((row.start_by_trial for row in rows if row.start_by_trial), {})
    groups: dict[object, list[float]] = {}
    for trial, value in by_trial.items():
        groups.setdefault(starts.get(trial, trial), []).append(value)
    return [float(np.mean(values)) for values in groups.values()]


def load_results(results: Results) -> list[TableResult]:
    """All tables that were run in a results folder, in the paper's order.

    Raises:
        UserError: the folder holds no results.
    """
    names = results.planned()
    if not names:
        raise UserError(f"{results.folder} holds no results; run a table first: tinylm paper run table5.")
    plans = [(name, plan) for name in names if (plan := results.plan(name)) is not None]
    if not plans:
        raise UserError(f"{results.folder}: {' '.join(results.notes)} Run the table again.")
    return [_table(results, name, plan) for name, plan in plans]


def efforts_of(results: Results) -> list[Effort]:
    """Who trained the finished cells of a results folder, the most seconds first; each cell counts once."""
    keys: dict[str, None] = {}
    for name in results.planned():
        for panel in (results.plan(name) or {"panels": []})["panels"]:
            keys |= dict.fromkeys(panel["baselines"].values())
            for row in panel["rows"]:
                keys |= dict.fromkeys([*row["pretrainings"], *row["trials"], *row["without"]])
    seconds: dict[str, list[float]] = {}
    for key in keys:
        cell = results.read(key)
        if cell is not None:
            # Earlier cells, all trained on a CPU, name no device.
            seconds.setdefault(cell.get("device", "a CPU without a name"), []).append(cell["seconds"])
    found = [Effort(device, len(each), sum(each)) for device, each in seconds.items()]
    return sorted(found, key=lambda effort: -effort.seconds)


def _table(results: Results, name: str, plan: dict[str, Any]) -> TableResult:
    spec = _spec(name, plan["spec"])
    panels = [
        _panel(results, name, panel, stored)
        for panel, stored in zip(spec.panels, plan["panels"], strict=True)
    ]
    return TableResult(name, spec, panels, plan["knobs"], plan["preset"], plan.get("corpus", {}))


def _spec(name: str, stored: dict[str, Any]) -> Table:
    """The spec of a stored plan; one from before panels named their claims takes those of today's."""
    spec = Table.model_validate(stored)
    if name not in table_names() or any("claims" in panel for panel in stored["panels"]):
        return spec
    today = {panel.name: panel.claims for panel in load_table(name)[1].panels}
    panels = [panel.model_copy(update={"claims": today.get(panel.name, [])}) for panel in spec.panels]
    return spec.model_copy(update={"panels": panels})


def _panel(results: Results, table: str, panel: Panel, stored: dict[str, Any]) -> PanelResult:
    rows = [_row(results, row, found) for row, found in zip(panel.rows, stored["rows"], strict=True)]
    baselines = {}
    for method, key in stored["baselines"].items():
        cell = results.read(key)
        if cell is not None:
            baselines[method] = cell["accuracy"]
    return PanelResult(
        table,
        panel,
        stored["task"],
        rows,
        baselines,
        results.committees(table, panel.name),
        results.latency(table, panel.name),
        (results.tuning(table, panel.name) or {"rows": {}})["rows"],
    )


def _row(results: Results, row: Row, stored: dict[str, Any]) -> RowResult:
    cells = [results.read(key) for key in stored["trials"]]
    without = [results.read(key) for key in stored["without"]]
    done = [cell for cell in cells if cell is not None]
    pretrainings = [
        cell for cell in (results.read(key) for key in stored["pretrainings"]) if cell is not None
    ]
    counted = {cell["parameters"] for cell in pretrainings if "parameters" in cell}
    first: dict[str, Any] = done[0] if done else {}
    return RowResult(
        spec=row,
        architecture=stored["architecture"],
        layer_count=stored["layer_count"],
        key=next(iter(stored["trials"]), ""),
        parameters=stored.get("parameters") or next(iter(counted), None),
        by_trial={i: cell["accuracy"] for i, cell in enumerate(cells) if cell is not None},
        best=[cell["best_epoch_accuracy"] for cell in done if "best_epoch_accuracy" in cell],
        without=[cell["accuracy"] for cell in without if cell is not None],
        start_by_trial={
            i: cell["identity"]["start"]
            for i, cell in enumerate(cells)
            if cell is not None and cell["identity"].get("start")
        },
        per_label=np.mean([cell["per_label"] for cell in done], axis=0) if done else np.zeros(0),
        # Counted when the run was planned; earlier plans do not hold it, but their cells do.
        coverage=first.get("coverage") or stored.get("coverage", {}),
        mean_tokens=first.get("mean_tokens") or stored.get("mean_tokens"),
        absent_share=first.get("absent_share"),
        single_heads=[cell["single_heads"] for cell in done if "single_heads" in cell],
        loss=[cell["history"][-1]["loss"] for cell in pretrainings],
        planned=len(stored["trials"]),
        seconds=_seconds(results, first) if done else None,
        note=stored["note"],
    )


def _seconds(results: Results, trial: dict[str, Any]) -> float:
    """Of a trial, and of the pre-training that it began from."""
    start = trial["identity"].get("start")
    pretraining = results.read(start) if start else None
    return float(trial["seconds"]) + (float(pretraining["seconds"]) if pretraining else 0.0)
