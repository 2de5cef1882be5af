"""Cells of the laboratory: one variant, seed and task, trained by one process on one thread.

A cell is keyed by all that decides its result, so that questions share it and none is run twice. Each
finished one is a record of the results folder (`tinylm.paper.records`); when a call ends, they are packed
into `runs.jsonl`. Several calls may work on one folder. Pre-trained weights are kept in the cache folder.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax

from tinylm.bench.recipe.data import EDITION, TASKS, Prepared, linear, prepare
from tinylm.bench.recipe.questions import Question, Variant
from tinylm.errors import UserError
from tinylm.infer.calibration import fit_temperature
from tinylm.model.config import ModelConfig
from tinylm.model.heads import MaskedLanguageModel
from tinylm.model.huggingface import load_masked_language_model, save_model
from tinylm.ops.device import device_named, processor_of
from tinylm.ops.packed import make_batch
from tinylm.paper.records import Content, Records
from tinylm.system.files import LIBRARIES, keep, key_of, locked, read_record, write_record
from tinylm.system.paths import cache_folder, cached
from tinylm.train.finetune import accuracy_of, finetune
from tinylm.train.masking import MASKS, Masking, generator
from tinylm.train.pretrain import pretrain

PACKED = "runs"
DONE, LEFT = "done", "left"  # how a cell ends
MEASURED_RATE, MEASURED_BATCH = 0.15, 50  # of the loss of masked language modelling


@dataclass(frozen=True)
class Cell:
    """One variant, seed and task."""

    question: str
    name: str
    variant: Variant
    seed: int
    task: str

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the result; not under which question it was first run."""
        return settings_of(self.variant, self.task) | {"seed": self.seed}

    @property
    def key(self) -> str:
        """Hash of the identity."""
        return key_of(self.identity)


def settings_of(variant: Variant, task: str) -> dict[str, Any]:
    """All that decides the result of a variant on a task, but the seed."""
    return {"edition": EDITION} | variant.pretraining() | variant.finetuning(task)


def cells_of(questions: dict[str, Question], seeds: int, tasks: Sequence[str] = ()) -> list[Cell]:
    """The different cells of questions, seed after seed, so that a call that ends early leaves whole seeds.

    Args:
        questions: by name.
        seeds: their number, from 0.
        tasks: only these; all where there are none.

    Raises:
        UserError: an unknown task.
    """
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"the task '{task}' is unknown; there are: {', '.join(TASKS)}.")
    found: dict[str, Cell] = {}
    for seed in range(seeds):
        for task in tasks or TASKS:
            for question, asked in questions.items():
                for name, variant in asked.variants.items():
                    cell = Cell(question, name, variant, seed, task)
                    found.setdefault(cell.key, cell)
    return list(found.values())


def run_cell(cell: Cell, folder: Path, deadline: float) -> str:
    """Run one cell, unless it is late, or another process has done it or is at it.

    Returns:
        DONE, LEFT, or a sentence that says why it failed.
    """
    results = Runs(folder)
    if time.time() >= deadline or results.read(cell.key) is not None:
        return LEFT
    with locked(folder / ".locks" / cell.key, wait=False) as mine:
        if not mine or results.read(cell.key) is not None:
            return LEFT
        try:
            results.write(cell.key, measure(cell))
        except (UserError, RuntimeError) as error:  # a rate too high for one variant, a GPU without memory
            return f"{cell.question}, {cell.name}, {cell.task}, seed {cell.seed}: {error}"
        return DONE


def run_pretraining(cell: Cell) -> str:
    """Make the pre-trained weights of a cell; returns DONE, or a sentence that says why it failed."""
    try:
        pretrained(cell.variant, cell.seed)
    except (UserError, RuntimeError) as error:
        return f"{cell.question}, {cell.name}, seed {cell.seed}: {error}"
    return DONE


class Runs:
    """The finished cells of a results folder, by key."""

    def __init__(self, folder: Path) -> None:
        self._records = Records(folder)

    def read(self, key: str) -> Content | None:
        """A finished cell, or None."""
        return self._records.read(f"cells/{key}", lambda cell: _problem(key, cell))

    def by_settings(self) -> dict[str, dict[int, Content]]:
        """All finished cells: for the hash of `settings_of`, those of each seed."""
        found: dict[str, dict[int, Content]] = {}
        for key in self._records.names("cells"):
            if cell := self.read(key):
                settings = {name: value for name, value in cell["identity"].items() if name != "seed"}
                found.setdefault(key_of(settings), {})[cell["seed"]] = cell
        return found

    def write(self, key: str, cell: Content) -> None:
        """Store a finished cell."""
        self._records.write(f"cells/{key}", cell)

    def pack(self) -> None:
        """Pack all finished cells into `runs.jsonl`."""
        self._records.pack({f"cells/{key}": PACKED for key in self._records.names("cells")})


def _problem(key: str, cell: Content) -> str | None:
    return None if key_of(cell.get("identity", {})) == key else "belongs to other settings"


def measure(cell: Cell) -> Content:
    """Pre-train, or find the pre-trained weights, fine-tune, and compare with the texts that validate."""
    variant = cell.variant
    texts = prepared(variant)
    start: MaskedLanguageModel | ModelConfig = variant.architecture(len(texts.tokenizer))
    pretraining: dict[str, float] = {"seconds": 0.0}
    if variant.pretrained:
        start, pretraining = pretrained(variant, cell.seed)
    task, recipe = texts.task(cell.task), variant.recipe_for(cell.task)
    begin = time.process_time()
    tuned = finetune(
        task,
        texts.tokenizer,
        start,
        recipe,
        seed=cell.seed,
        label=f"{cell.name}, {cell.task}",
        test_each_epoch=False,
        device=device_named(variant.device),
    )
    seconds = time.process_time() - begin
    rival = linear(cell.task)
    return {
        "identity": cell.identity,
        "question": cell.question,
        "variant": cell.name,
        "task": cell.task,
        "seed": cell.seed,
        "pretraining": pretraining,
        "seconds": round(seconds, 2),
        "training_loss": tuned.history[-1]["loss"],
        "accuracy": tuned.accuracy,
        "loss": _cross_entropy(tuned.test_logits, task.test_labels),
        "linear": {
            "accuracy": accuracy_of(rival.logits, task.test_labels),
            "seconds": round(rival.seconds, 2),
        },
        "with_linear": accuracy_together([tuned.test_logits, rival.logits], task.test_labels),
        "rows": {
            "train": len(task.train),
            "validation": len(task.test),
            "hash": texts.fingerprint(cell.task),
        },
        "processor": processor_of(device_named(variant.device)),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def prepared(variant: Variant) -> Prepared:
    """The texts of a variant."""
    return prepare(*texts_of(variant))


def texts_of(variant: Variant) -> tuple[int, str, int, int]:
    """What `prepare` takes for a variant."""
    recipe = variant.recipe_for(TASKS[0])
    return variant.vocabulary, variant.vocabulary_of, variant.w_s, recipe.max_tokens


def weights_name(variant: Variant, seed: int) -> str:
    """Where pre-trained weights lie in the cache folder; the same for variants that share them."""
    return f"recipe/models/{key_of(_pretraining(variant, seed))}"


def _pretraining(variant: Variant, seed: int) -> dict[str, Any]:
    return {"edition": EDITION, "seed": seed} | variant.pretraining()


def pretrained(variant: Variant, seed: int) -> tuple[MaskedLanguageModel, dict[str, float]]:
    """The pre-trained model of a variant, trained now or found in the cache folder.

    Returns:
        The model; seconds of processor time and the loss on held-out paragraphs, over the whole vocabulary.
    """
    name = weights_name(variant, seed)
    folder = cached(name)
    if not folder.is_dir():
        with locked(cache_folder() / "locks" / name.replace("/", "-")):  # another process may be at the same
            if not folder.is_dir():
                model, facts = _pretrain(variant, seed)

                def write(temporary: Path) -> None:
                    save_model(model, temporary)
                    write_record(temporary, "pretrained", identity=_pretraining(variant, seed), **facts)

                keep(folder, write)
    record = read_record(folder)
    return load_masked_language_model(folder), {name: record[name] for name in ("seconds", "loss")}


def _pretrain(variant: Variant, seed: int) -> tuple[MaskedLanguageModel, dict[str, float]]:
    texts, recipe = prepared(variant), variant.recipe_for(TASKS[0])
    config = variant.architecture(len(texts.tokenizer))
    phases = (("own", variant.own_first), ("w_s", recipe.pretrain.epochs), ("own", variant.own_last))
    begin, model = time.process_time(), None
    for name, epochs in phases:
        if epochs:
            model, _ = pretrain(
                texts.ids(name),
                texts.tokenizer,
                config,
                recipe.with_epochs(pretrain=epochs),
                seed=seed,
                start=model,
                device=device_named(variant.device),
            )
    assert model is not None
    seconds = time.process_time() - begin
    return model, {"seconds": round(seconds, 2), "loss": masked_loss(model, texts)}


@torch.inference_mode()
def masked_loss(model: MaskedLanguageModel, texts: Prepared) -> float:
    """Loss of masked language modelling over the whole vocabulary on held-out paragraphs, 15 % masked."""
    paragraphs, masking = texts.ids("measured"), Masking(texts.tokenizer, MEASURED_RATE)
    total, count = 0.0, 0
    for first in range(0, len(paragraphs), MEASURED_BATCH):
        rows = range(first, min(first + MEASURED_BATCH, len(paragraphs)))
        batch, _ = make_batch(paragraphs, rows, model.config.max_tokens)
        masked = masking.draw(batch.ids, generator(0, MASKS, first))
        loss = model(batch.with_ids(masked.ids), masked.positions, masked.targets, None)
        total += float(loss) * len(masked.targets)
        count += len(masked.targets)
    return total / count


def accuracy_together(members: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """Accuracy of a sum of logits, each divided by its temperature.

    Temperatures are fitted on one half of the texts and used on the other, and the other way round.

    Args:
        members: logits of each, `[texts, labels]`.
        labels: `int64 [texts]`.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    halves = order[::2], order[1::2]
    right = 0
    for fitted, tested in (halves, halves[::-1]):
        temperatures = [fit_temperature(logits[fitted], labels[fitted]) for logits in members]
        cooled = [logits[tested] / t for logits, t in zip(members, temperatures, strict=True)]
        right += int((np.sum(cooled, axis=0).argmax(1) == labels[tested]).sum())
    return right / len(labels)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.mean(log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]))
