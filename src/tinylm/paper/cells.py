"""From a spec's rows to cells: the pieces of work that tables share.

A cell is one pre-training, one fine-tuning (one trial) or one baseline. Its identity holds
everything that determines its result, and nothing else: rows of different tables that ask for
the same thing get the same cell, which is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tinylm.errors import UserError
from tinylm.model.config import ModelConfig
from tinylm.paper.data import SELECTION_SEED, Materials, TaskData, depends_on_task
from tinylm.paper.preset import Preset
from tinylm.paper.public import Public, find_public
from tinylm.paper.spec import Finetuning, Panel, Row, Selection, Table, TaskSpec
from tinylm.system.files import key_of
from tinylm.train.recipes import Recipe

# Raised when the meaning of a stored cell changes, so that older ones are computed anew.
FORMAT = 1
BASELINES = ("tfidf", "fasttext")


@dataclass(frozen=True)
class _Cell:
    """What all cells have.

    Attributes:
        identity: what determines the result.
        label: what people call it.
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
        work: rough number of multiplications.
    """

    selection: Selection
    size: int | None
    task: TaskSpec
    config: ModelConfig
    recipe: Recipe
    seed: int
    work: float


@dataclass(frozen=True)
class FinetuningCell(_Cell):
    """One trial of one row.

    Attributes:
        start: the pre-training or public model that it begins from; None for random weights.
        selection, size: of the W_S of `start`, for its coverage.
    """

    start: Pretraining | Public | None
    selection: Selection
    size: int | None
    task: TaskSpec
    config: ModelConfig
    recipe: Recipe
    seed: int
    work: float


@dataclass(frozen=True)
class BaselineCell(_Cell):
    """TF-IDF or fastText on a task."""

    method: str
    task: TaskSpec
    work: float = 0.0


@dataclass(frozen=True)
class RowPlan:
    """Cells of one row: its trials, and the same without pre-training where a gap is measured."""

    row: Row
    config: ModelConfig
    size: int | None
    trials: list[FinetuningCell]
    without: list[FinetuningCell]
    note: str = ""


@dataclass(frozen=True)
class PanelPlan:
    """Cells of one panel."""

    panel: Panel
    rows: list[RowPlan]
    baselines: list[BaselineCell]
    facts: dict[str, Any]


@dataclass(frozen=True)
class TablePlan:
    """Cells of one table."""

    name: str
    table: Table
    panels: list[PanelPlan]

    def as_json(self, preset_name: str, preset: Preset) -> dict[str, Any]:
        """What a report needs to find the cells without any data set."""
        return {
            "table": self.name,
            "preset": preset_name,
            "knobs": preset.model_dump(mode="json"),
            "spec": self.table.model_dump(mode="json"),
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
                            "trials": [cell.key for cell in row.trials],
                            "without": [cell.key for cell in row.without],
                            "pretrainings": sorted(
                                {cell.start.key for cell in row.trials if isinstance(cell.start, Pretraining)}
                            ),
                            "note": row.note,
                        }
                        for row in plan.rows
                    ],
                }
                for plan in self.panels
            ],
        }


class Planner:
    """Turns specs into cells under a preset."""

    def __init__(self, preset: Preset, materials: Materials, trials: int) -> None:
        self.preset, self.materials, self.trials = preset, materials, trials
        self.recipe = preset.base_recipe()
        self._vocab_size = len(materials.tokenizer)
        self._mean_tokens = float(materials.corpus.paragraphs.lengths.mean())

    def table(self, name: str, table: Table) -> TablePlan:
        """All cells of a table."""
        return TablePlan(name, table, [self._panel(name, panel) for panel in table.panels])

    def _panel(self, table: str, panel: Panel) -> PanelPlan:
        data = self.materials.of(panel.task)
        facts = {
            "name": data.task.name,
            "labels": data.task.label_names,
            "train_texts": len(data.task.train_texts),
            "validation_texts": len(data.validation),
            "test_texts": len(data.task.test_texts),
            "t_c": int(data.in_task.sum()),
            "mean_tokens": round(float(data.tokens.lengths.mean()), 1),
            "notes": data.task.notes,
        }
        baselines = [
            BaselineCell(
                {"kind": "baseline", "format": FORMAT, "method": method, "task": data.task.fingerprint},
                f"{method} on {panel.title}",
                method,
                panel.task,
            )
            for method in BASELINES
        ]
        rows: list[RowPlan] = []
        twins: list[tuple[ModelConfig, Selection, Finetuning | None]] = []
        for row in panel.rows:
            label = f"{table}{panel.name and '(' + panel.name + ')'} {row.name}"
            config = self._config(row, panel)
            # Members of one architecture differ by their seeds.
            same = (config, row.w_s, row.finetune)
            shift = 100 * twins.count(same)
            twins.append(same)
            rows.append(self._row(row, panel, data, config, label, shift))
        return PanelPlan(panel, rows, baselines, facts)

    def _config(self, row: Row, panel: Panel) -> ModelConfig:
        architecture = row.architecture or panel.architecture
        return self.preset.model_config_of(architecture, self._vocab_size, role=row.role)

    def _row(
        self, row: Row, panel: Panel, data: TaskData, config: ModelConfig, label: str, shift: int
    ) -> RowPlan:
        size = self.preset.size_of(row.w_s, row.paper.w_s)
        hyper = row.finetune or panel.finetune
        seeds = [shift + trial for trial in range(self.trials)]
        starts: list[Pretraining | Public | None]
        try:
            starts = [
                self._start(row, panel, data, config, size, shift + trial % self.preset.pretrainings, label)
                for trial in range(self.trials)
            ]
        except UserError as error:
            return RowPlan(row, config, size, [], [], str(error))
        if starts and isinstance(starts[0], Public):
            config = starts[0].config
        if size is None and isinstance(starts[0], Pretraining):
            size = len(self.materials.paragraphs(row.w_s, None, panel.task))
        trials = [
            self._finetuning(start, row.w_s, size, panel, data, config, hyper, seed, label)
            for start, seed in zip(starts, seeds, strict=True)
        ]
        without: list[FinetuningCell] = []
        baseline = row.without or panel.without
        if baseline is not None:
            # Also beside a public model: an architecture of the same kind, trained here.
            plain = self._config(row, panel)
            none = Selection(select="none")
            without = [
                self._finetuning(
                    None, none, None, panel, data, plain, baseline, seed, f"{label}, no pre-training"
                )
                for seed in seeds
            ]
        return RowPlan(row, config, size, trials, without)

    def _start(
        self,
        row: Row,
        panel: Panel,
        data: TaskData,
        config: ModelConfig,
        size: int | None,
        seed: int,
        label: str,
    ) -> Pretraining | Public | None:
        selection = row.w_s
        if selection.select == "none":
            return None
        if selection.select == "all" and isinstance(self.preset.all_of_wikipedia, str):
            return find_public(self.preset.all_of_wikipedia, self._vocab_size)
        paragraphs = self.materials.paragraphs(selection, size, panel.task)
        recipe = self.preset.pretraining_recipe(len(paragraphs))
        meta = self.materials.corpus.meta
        of_task = depends_on_task(selection)
        if selection.select == "all":
            selection = Selection(select="random", size=len(paragraphs))  # what it is here
        identity = {
            "kind": "pretraining",
            "format": FORMAT,
            "corpus": [meta["fingerprint"], meta["tokenizer"], meta["max_tokens"], meta["excluded"]],
            "w_s": {
                "select": selection.select,
                "size": len(paragraphs),
                "missing": selection.missing if self.preset.paper_t_m else None,
                "absent": selection.absent,
                "seed": SELECTION_SEED,
                "tokens": data.tokens_fingerprint if of_task else None,
            },
            "model": config.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json", exclude={"finetune", "model", "vocabulary"}),
            "seed": seed,
        }
        steps = recipe.pretrain.epochs * len(paragraphs) / recipe.pretrain.batch_size
        per_token = _weights_per_token(config) + recipe.mask_rate * config.vocab_size * config.width
        tokens = steps * recipe.pretrain.batch_size * self._mean_tokens
        work = 3 * tokens * per_token + steps * _update(config)
        return Pretraining(
            identity,
            f"{label}: pre-training",
            selection,
            len(paragraphs),
            panel.task,
            config,
            recipe,
            seed,
            work,
        )

    def _finetuning(
        self,
        start: Pretraining | Public | None,
        selection: Selection,
        size: int | None,
        panel: Panel,
        data: TaskData,
        config: ModelConfig,
        hyper: Finetuning,
        seed: int,
        label: str,
    ) -> FinetuningCell:
        recipe = self.preset.finetuning_recipe(hyper)
        identity = {
            "kind": "finetuning",
            "format": FORMAT,
            "start": start.key if start else None,
            "model": config.model_dump(mode="json"),
            "task": data.task.fingerprint,
            "validation": len(data.validation),
            "tokens": data.tokens_fingerprint,
            "tokenizer": self.materials.tokenizer.fingerprint,
            "max_tokens": recipe.max_tokens,
            "recipe": recipe.name,
            "finetune": recipe.finetune.model_dump(mode="json"),
            "seed": seed,
        }
        encoded, epochs = data.encoded, recipe.finetune.epochs
        tokens = 3 * len(encoded.train.ids) + len(encoded.test.ids)
        steps = len(encoded.train) / recipe.finetune.batch_size
        work = epochs * (tokens * _weights_per_token(config) + steps * _update(config))
        return FinetuningCell(
            identity,
            f"{label}, trial {seed % 100 + 1}",
            start,
            selection,
            size,
            panel.task,
            config,
            recipe,
            seed,
            work,
        )


def cells_of(plan: TablePlan, rows: list[str] | None) -> Iterator[FinetuningCell | BaselineCell]:
    """The cells of a table, or of these rows of it."""
    for panel in plan.panels:
        yield from panel.baselines
        for row in panel.rows:
            if rows is None or row.row.name in rows:
                yield from row.trials
                yield from row.without


def _weights_per_token(config: ModelConfig) -> float:
    """Multiplications of the transformer blocks and convolutions for one token."""
    blocks = 12.0 * config.layers * config.width**2
    if front := config.convolution:
        side = front.kernel[0] * front.kernel[1]
        inner = (front.layers - 1) * front.channels**2
        # Convolutions run far below the speed of matrix products.
        blocks += 4 * config.width * (side * (front.channels + inner) + front.channels)
    return blocks


def _update(config: ModelConfig) -> float:
    """What one step of the optimizers costs beside that, mostly on the embeddings."""
    return 100.0 * config.vocab_size * config.width
