"""From a spec's rows to cells: the pieces of work that tables share.

A cell is one pre-training, one fine-tuning (one trial) or one baseline. Its identity holds
everything that determines its result, and nothing else: rows of different tables that need
the same thing get the same cell, which is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch

from tinylm.errors import UserError
from tinylm.model.config import ModelConfig
from tinylm.model.flops import training_work
from tinylm.model.heads import SequenceClassifier
from tinylm.paper.data import SELECTION_SEED, Materials, TaskData, depends_on_task
from tinylm.paper.preset import MOST_TRIALS, Preset
from tinylm.paper.public import Public, find_public
from tinylm.paper.spec import Finetuning, Panel, Row, Selection, Table, TaskSpec, panel_name
from tinylm.system.files import key_of
from tinylm.text.coverage import Coverage
from tinylm.train.recipes import Recipe

# Raised when the meaning of a stored cell changes, so that older ones are not found any more.
FORMAT = 1
BASELINES = ("tfidf", "linear-svm", "fasttext")


@dataclass(frozen=True)
class _Cell:
    """What all cells have.

    Attributes:
        identity: what determines the result.
        label: shown in messages.
    """

    identity: dict[str, Any]
    label: str

    @cached_property
    def key(self) -> str:
        """Hash of the identity."""
        return key_of(self.identity)


@dataclass(frozen=True)
class Pretraining(_Cell):
    """Pre-train one architecture on one W_S.

    Attributes:
        selection, size, task: how W_S is chosen.
        reduced: whether the vocabulary is reduced to T_W.
        number: which of the pre-trainings of its row, from 0.
        seed: see `seed_of`.
        work: see `training_work`.
    """

    selection: Selection
    size: int | None
    task: TaskSpec
    reduced: bool
    config: ModelConfig
    recipe: Recipe
    number: int
    seed: int
    work: float


@dataclass(frozen=True)
class FinetuningCell(_Cell):
    """One trial of one row.

    Attributes:
        start: the pre-training or public model that it begins from; None for random weights.
        selection, size: of the W_S of `start`, for its coverage.
        reduced: whether the vocabulary is reduced to T_W.
        trial: its number, from 0.
        patience: epochs without a better validation accuracy after which it ends; None takes all epochs.
        single_heads: whether each head is measured alone.
        seed, work: as of a pre-training.
    """

    start: Pretraining | Public | None
    selection: Selection
    size: int | None
    task: TaskSpec
    reduced: bool
    config: ModelConfig
    recipe: Recipe
    patience: int | None
    single_heads: bool
    trial: int
    seed: int
    work: float


@dataclass(frozen=True)
class BaselineCell(_Cell):
    """A model without pre-training or transformer on a task."""

    method: str
    task: TaskSpec
    work: float = 0.0


Cell = Pretraining | FinetuningCell | BaselineCell


@dataclass(frozen=True)
class RowPlan:
    """Cells of one row: its trials, and the same without pre-training where a gap is measured.

    Attributes:
        size: W_S; None where the row has none.
        coverage: of the W_S that its trials begin from; None where they begin from none.
        mean_tokens: of a paragraph of that W_S.
        note: why the row has no cells, empty if it has.
    """

    row: Row
    config: ModelConfig
    size: int | None
    trials: list[FinetuningCell]
    without: list[FinetuningCell]
    coverage: Coverage | None = None
    mean_tokens: float | None = None
    note: str = ""

    @property
    def pretrainings(self) -> list[Pretraining]:
        """Those that its trials begin from."""
        starts = {cell.start.key: cell.start for cell in self.trials if isinstance(cell.start, Pretraining)}
        return [starts[key] for key in sorted(starts)]


@dataclass(frozen=True)
class PanelPlan:
    """Cells of one panel."""

    panel: Panel
    rows: list[RowPlan]
    baselines: list[BaselineCell]
    facts: dict[str, Any]


@dataclass(frozen=True)
class TablePlan:
    """Cells of one table.

    Attributes:
        corpus: facts for the report.
    """

    name: str
    table: Table
    panels: list[PanelPlan]
    corpus: dict[str, Any]

    def cells(
        self, rows: Sequence[str] | None = None, panels: Sequence[str] | None = None
    ) -> Iterator[FinetuningCell | BaselineCell]:
        """All cells but the pre-trainings, the `start` of others; or those of these rows and panels."""
        for panel in self.panels:
            if panels is not None and panel.panel.name not in panels:
                continue
            yield from panel.baselines
            for row in panel.rows:
                if rows is None or row.row.name in rows:
                    yield from row.trials
                    yield from row.without

    def as_json(self, preset_name: str, preset: Preset) -> dict[str, Any]:
        """What a report needs to find the cells without any data set."""
        return {
            "table": self.name,
            "preset": preset_name,
            "knobs": preset.model_dump(mode="json"),
            "spec": self.table.model_dump(mode="json"),
            "corpus": self.corpus,
            "panels": [
                {
                    "name": plan.panel.name,
                    "task": plan.facts,
                    "baselines": {cell.method: cell.key for cell in plan.baselines},
                    "rows": [
                        {
                            "name": row.row.name,
                            "architecture": row.config.name,
                            "layer_count": row.config.layer_count,
                            "parameters": parameters_of(row.config, len(plan.facts["labels"])),
                            "trials": [cell.key for cell in row.trials],
                            "without": [cell.key for cell in row.without],
                            "pretrainings": [cell.key for cell in row.pretrainings],
                            "coverage": asdict(row.coverage) if row.coverage else {},
                            "mean_tokens": row.mean_tokens,
                            "note": row.note,
                        }
                        for row in plan.rows
                    ],
                }
                for plan in self.panels
            ],
        }


def seed_of(copy: int, number: int) -> int:
    """The seed of a training. Identities hold it, so it must never change.

    Args:
        copy: which of the rows of one panel that are alike, as members of a committee may be.
        number: of the pre-training or trial.
    """
    assert number < MOST_TRIALS
    return MOST_TRIALS * copy + number


def parameters_of(config: ModelConfig, n_labels: int) -> int:
    """Number of a classifier's parameters."""
    with torch.device("meta"):  # takes no memory
        model = SequenceClassifier(config, n_labels)
    return sum(weight.numel() for weight in model.parameters())


@dataclass(frozen=True)
class _Arm:
    """What the trainings of one row have in common, with or without pre-training.

    Attributes:
        tokenizer: its fingerprint.
        reduced: whether it knows T_W alone.
        single_heads: whether each head is measured alone.
        as_long_as: rows whose trainings together these take as long as; none for the preset's epochs.
    """

    task: TaskSpec
    data: TaskData
    config: ModelConfig
    copy: int
    label: str
    tokenizer: str
    reduced: bool = False
    single_heads: bool = False
    as_long_as: Sequence[RowPlan] = ()

    def more_epochs(self, work: float, others: Sequence[float]) -> float:
        """How many times as many epochs are needed for equal seconds, at least 1.

        Equal is the arithmetic, not what a clock measured: it is known before anything is trained, and
        the same on every machine, so that it may determine a cell's key. The seconds of finished cells
        stand in the report, where the two can be compared.

        Args:
            work: of the training with the preset's epochs, see `training_work`.
            others: of the trainings that it is to take as long as.
        """
        return max(1.0, sum(others) / work) if others else 1.0


class Planner:
    """Turns specs into cells under a preset."""

    def __init__(self, preset: Preset, materials: Materials, trials: int) -> None:
        self.preset, self.materials, self.trials = preset, materials, trials
        self._vocab_size = len(materials.tokenizer)
        self._mean_tokens = float(materials.corpus.paragraphs.lengths.mean())

    def table(self, name: str, table: Table) -> TablePlan:
        """All cells of a table."""
        corpus = {
            "paragraphs": len(self.materials.corpus.paragraphs),
            "mean_tokens": round(self._mean_tokens, 1),
            "vocabulary": self._vocab_size,
        }
        return TablePlan(name, table, [self._panel(name, panel) for panel in table.panels], corpus)

    def _panel(self, table: str, panel: Panel) -> PanelPlan:
        data = self.materials.of(panel.task)
        name = panel_name(table, panel.name)
        rows: list[RowPlan] = []
        alike: list[tuple[Any, ...]] = []
        for row in panel.rows:
            architecture = row.architecture or panel.architecture
            tokenizer, of_row = self.materials.tokenizer, data
            if row.reduced_vocabulary:
                size = self.preset.size_of(row.w_s, row.paper.w_s)
                reduced = self.materials.reduced(row.w_s, size, panel.task)
                tokenizer, of_row = reduced.tokenizer, reduced.data
            config = self.preset.model_config_of(architecture, len(tokenizer), role=row.role)
            if row.equal_parameters:
                config = self._as_large_as(_named(rows, row.equal_parameters), config, data.encoded.n_labels)
            kind = (config, row.w_s, row.finetune, row.equal_seconds)
            others = _named(rows, row.equal_seconds)
            label = f"{name} {row.name}"
            arm = _Arm(
                panel.task,
                of_row,
                config,
                alike.count(kind),
                label,
                tokenizer.fingerprint,
                row.reduced_vocabulary,
                panel.single_heads,
                others,
            )
            rows.append(self._row(row, panel, arm))
            alike.append(kind)
        baselines = [
            BaselineCell(
                {"kind": "baseline", "format": FORMAT, "method": method, "task": data.task.fingerprint},
                f"{method} on {panel.title}",
                method,
                panel.task,
            )
            for method in BASELINES
        ]
        return PanelPlan(panel, rows, baselines, _facts(data))

    def _as_large_as(self, others: Sequence[RowPlan], config: ModelConfig, n_labels: int) -> ModelConfig:
        """This architecture with the number of heads that comes nearest to the parameters of other rows."""
        wanted = sum(parameters_of(other.config, n_labels) for other in others)
        best, heads = config, config.heads
        while True:
            wider = self.preset.base_recipe().model_config_for(
                self._vocab_size, layers=config.layers, heads=heads, convolution=config.convolution
            )
            found, nearest = (abs(parameters_of(each, n_labels) - wanted) for each in (wider, best))
            if found > nearest:
                return best
            best, heads = wider, heads + 1

    def _row(self, row: Row, panel: Panel, arm: _Arm) -> RowPlan:
        size = self.preset.size_of(row.w_s, row.paper.w_s)
        count = min(self.trials, panel.trials or self.trials)
        try:
            starts = [
                self._start(arm, row.w_s, size, number)
                for number in range(min(self.preset.pretrainings, count))
            ]
        except UserError as error:
            return RowPlan(row, arm.config, size, [], [], note=str(error))
        without: list[FinetuningCell] = []
        if hyper := row.without or panel.without:
            # Also beside a public model: an architecture of the same kind, trained here.
            plain = replace(arm, label=f"{arm.label}, no pre-training")
            none = Selection(select="none")
            without = [self._finetuning(plain, None, none, None, hyper, trial) for trial in range(count)]
        first = starts[0]
        if isinstance(first, Public):
            arm = replace(arm, config=first.config)
        if size is None and isinstance(first, Pretraining):
            size = first.size
        hyper = row.finetune or panel.finetune
        trials = [
            self._finetuning(arm, starts[trial % len(starts)], row.w_s, size, hyper, trial)
            for trial in range(count)
        ]
        if first is None:
            return RowPlan(row, arm.config, size, trials, without)
        found = self.materials.coverage(row.w_s, size, panel.task)
        lengths = self.materials.paragraphs(row.w_s, size, panel.task).lengths
        return RowPlan(row, arm.config, size, trials, without, found, round(float(lengths.mean()), 1))

    def _start(
        self, arm: _Arm, selection: Selection, size: int | None, number: int
    ) -> Pretraining | Public | None:
        """What a trial begins from; `number` counts the pre-trainings of a row."""
        if selection.select == "none":
            return None
        if selection.select == "all" and isinstance(self.preset.all_of_wikipedia, str):
            return find_public(self.preset.all_of_wikipedia, self._vocab_size)
        paragraphs = self.materials.paragraphs(selection, size, arm.task)
        recipe = self.preset.pretraining_recipe(len(paragraphs))
        meta = self.materials.corpus.meta
        of_task = depends_on_task(selection)
        work = self._pretraining_work(arm.config, recipe, len(paragraphs))
        longer = arm.more_epochs(
            work, [start.work for row in arm.as_long_as for start in row.pretrainings[:1]]
        )
        if longer > 1:
            recipe = recipe.with_epochs(pretrain=math.ceil(longer * recipe.pretrain.epochs))
            work = self._pretraining_work(arm.config, recipe, len(paragraphs))
        if selection.select == "all":
            selection = Selection(select="random", size=len(paragraphs))  # what it is here
        seed = seed_of(arm.copy, number)
        identity: dict[str, Any] = {
            "kind": "pretraining",
            "format": FORMAT,
            "corpus": [meta["fingerprint"], meta["tokenizer"], meta["max_tokens"], meta["excluded"]],
            "w_s": {
                "select": selection.select,
                "size": len(paragraphs),
                "missing": selection.missing if self.preset.paper_t_m else None,
                "absent": selection.absent,
                "seed": SELECTION_SEED,
                "tokens": arm.data.tokens_fingerprint if of_task else None,
            },
            "model": arm.config.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json", exclude={"finetune", "model", "vocabulary"}),
            "seed": seed,
        }
        if selection.lengths_of is not None:  # else not named at all, as in cells from before there was any
            identity["w_s"] |= {"lengths_of": selection.lengths_of}
        if arm.reduced:
            identity["vocabulary"] = "reduced"
        return Pretraining(
            identity,
            f"{arm.label}: pre-training",
            selection,
            len(paragraphs),
            arm.task,
            arm.reduced,
            arm.config,
            recipe,
            number,
            seed,
            work,
        )

    def _pretraining_work(self, config: ModelConfig, recipe: Recipe, paragraphs: int) -> float:
        passes = recipe.pretrain.epochs * paragraphs
        trained = passes * self._mean_tokens
        return training_work(
            config,
            trained=trained,
            masked=recipe.mask_rate * trained * (recipe.sampled_tokens or config.vocab_size),
            steps=passes / recipe.pretrain.batch_size,
        )

    def _finetuning(
        self,
        arm: _Arm,
        start: Pretraining | Public | None,
        selection: Selection,
        size: int | None,
        hyper: Finetuning,
        trial: int,
    ) -> FinetuningCell:
        data, patience = arm.data, self.preset.patience
        recipe = self.preset.finetuning_recipe(hyper, len(data.encoded.train))
        work = _finetuning_work(arm.config, recipe, data)
        longer = arm.more_epochs(work, [row.trials[0].work for row in arm.as_long_as if row.trials])
        if longer > 1:
            recipe = recipe.with_epochs(finetune=math.ceil(longer * recipe.finetune.epochs))
            work = _finetuning_work(arm.config, recipe, data)
        seed = seed_of(arm.copy, trial)
        identity = {
            "kind": "finetuning",
            "format": FORMAT,
            "start": start.key if start else None,
            "model": arm.config.model_dump(mode="json"),
            "task": data.task.fingerprint,
            "validation": len(data.validation),
            "tokens": data.tokens_fingerprint,
            "tokenizer": arm.tokenizer,
            "max_tokens": recipe.max_tokens,
            "recipe": recipe.name,
            "finetune": recipe.finetune.model_dump(mode="json"),
            "seed": seed,
        }
        # What is not named has the value that it had before there was a choice, so that keys stay.
        if patience is not None:
            identity["patience"] = patience
        if recipe.pooling != "first":
            identity["pooling"] = recipe.pooling
        if arm.single_heads:
            identity["measures"] = "single-heads"
        return FinetuningCell(
            identity,
            f"{arm.label}, trial {trial + 1}",
            start,
            selection,
            size,
            arm.task,
            arm.reduced,
            arm.config,
            recipe,
            patience,
            arm.single_heads,
            trial,
            seed,
            work,
        )


def _finetuning_work(config: ModelConfig, recipe: Recipe, data: TaskData) -> float:
    encoded, epochs = data.encoded, recipe.finetune.epochs
    return training_work(
        config,
        trained=epochs * len(encoded.train.ids),
        evaluated=epochs * len(encoded.test.ids),
        steps=epochs * len(encoded.train) / recipe.finetune.batch_size,
    )


def _named(rows: Sequence[RowPlan], names: Sequence[str]) -> list[RowPlan]:
    return [row for row in rows if row.row.name in names]


def _facts(data: TaskData) -> dict[str, Any]:
    """What the report says of a task."""
    return {
        "name": data.task.name,
        "labels": data.task.label_names,
        "train_texts": len(data.task.train_texts),
        "validation_texts": len(data.validation),
        "test_texts": len(data.task.test_texts),
        "t_c": int(data.in_task.sum()),
        "mean_tokens": round(float(data.tokens.lengths.mean()), 1),
        "notes": data.task.notes,
    }
