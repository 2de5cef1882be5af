"""Suite `cpu`: training steps of the library beside the authors', in real tokens per second.

Ours are the steps of `pretraining_run` and `finetuning_run` with the paper's recipe. A
round is one epoch of a few batches on each side: of ours, of the reference in fp32, of
the reference with bf16 autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from tinylm.bench import arithmetic
from tinylm.bench.measure import Machine, Measured, alternate, summarise
from tinylm.bench.reference import (
    IGNORED,
    ReferenceProcess,
    ReferenceRun,
    finetuning_reference,
    pretraining_reference,
)
from tinylm.bench.texts import N_LABELS, openings, sentences
from tinylm.model.config import Convolution, ModelConfig
from tinylm.model.int8_training import int8_pays
from tinylm.train.finetune import EncodedTask, finetuning_run
from tinylm.train.loop import Run
from tinylm.train.pretrain import pretraining_run
from tinylm.train.recipes import RECIPES

RECIPE = RECIPES["paper"]
BATCHES = 2  # of one epoch
SEED = 0


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        finetune: classification of sentences; otherwise masked language modelling of openings.
        shape: settings of `ModelConfig`.
        vocabulary: see `openings`.
    """

    finetune: bool
    shape: dict[str, Any]
    vocabulary: int | None = None


CASES = {
    "mlm-bert6": Case(False, {"layers": 6}),
    "mlm-bert1": Case(False, {"layers": 1}),
    "mlm-bert1-conv": Case(False, {"layers": 1, "convolution": Convolution(layers=2, channels=64)}),
    "finetune-bert6-fewrel": Case(True, {"layers": 6}),
    "finetune-bert1-fewrel": Case(True, {"layers": 1}),
    "mlm-small": Case(False, {"layers": 2, "heads": 4}, vocabulary=8_000),
}


@dataclass(frozen=True)
class PreparedCase:
    """A case before its first step.

    Attributes:
        config: of ours and of the reference.
        run: ours.
        reference: makes the reference's run.
        texts: where they are from.
    """

    config: ModelConfig
    run: Run
    reference: Callable[[], ReferenceRun]
    texts: str


def prepare_case(name: str) -> PreparedCase:
    """Prepare one of CASES."""
    case = CASES[name]
    source, texts = openings(case.vocabulary)
    config = RECIPE.model_config_for(len(source.tokenizer), **case.shape)
    if case.finetune:
        count = BATCHES * RECIPE.finetune.batch_size
        chosen = sentences()
        encoded = source.tokenizer.encode(chosen.texts[:count], config.max_tokens)
        labels = chosen.labels[:count]
        task = EncodedTask(encoded, labels, encoded, labels, N_LABELS)  # nothing is tested
        texts = f"{chosen.source}, {texts.split(', ')[1]}"
        _, run = finetuning_run(task, source.tokenizer, config, RECIPE, seed=SEED)
        return PreparedCase(
            config, run, partial(finetuning_reference, task, config, RECIPE, seed=SEED), texts
        )
    count = BATCHES * RECIPE.pretrain.batch_size
    rows = np.random.default_rng(SEED).choice(len(source.paragraphs), count, replace=False)
    paragraphs = source.paragraphs.take(rows)
    _, run = pretraining_run(paragraphs, source.tokenizer, config, RECIPE, seed=SEED)
    make = partial(pretraining_reference, paragraphs, source.tokenizer, config, RECIPE, seed=SEED)
    return PreparedCase(config, run, make, texts)


def measure_case(name: str, rounds: int, machine: Machine) -> Measured:
    """Measure one of CASES."""
    prepared = prepare_case(name)
    reference = ReferenceProcess(prepared.reference)
    try:
        details = {"texts": prepared.texts}
        return compare(name, prepared.config, prepared.run, reference, rounds, machine, details)
    finally:
        reference.close()


def compare(
    name: str,
    config: ModelConfig,
    run: Run,
    reference: ReferenceRun | ReferenceProcess,
    rounds: int,
    machine: Machine,
    details: dict[str, Any],
) -> Measured:
    """Train both in turn for `rounds` epochs after a warm-up: of ours an epoch, of the reference a step."""
    steps = range(run.steps_per_epoch)
    lengths, needed = np.zeros(0, np.int64), 0.0
    for step in steps:
        inputs = reference.inputs(step)
        batch_lengths = inputs["attention_mask"].sum(1).numpy()
        if inputs["labels"].ndim == 2:
            hidden = (inputs["labels"] != IGNORED).sum(1).numpy()
            needed += arithmetic.masked_language_model(config, batch_lengths, hidden)
        else:
            needed += arithmetic.sequence_classifier(config, batch_lengths, N_LABELS)
        lengths = np.append(lengths, batch_lengths)
    tokens = int(lengths.sum())

    def ours() -> None:
        for _ in steps:
            run.step()

    def theirs(autocast: bool) -> None:
        first = run.place.step - len(steps)  # of the epoch that ours has just trained
        for step in steps:
            reference.step(first + step, autocast=autocast)

    ours()
    reference.step(0)
    reference.step(0, autocast=True)
    seconds = alternate([ours, lambda: theirs(False), lambda: theirs(True)], rounds)
    half = torch.bfloat16 in {parameter.dtype for parameter in run.model.parameters()}
    details = details | {
        "texts_per_batch": len(lengths) // len(steps),
        "tokens_per_text": round(tokens / len(lengths), 1),
        "precision": ("bf16 and int8" if int8_pays() else "bf16") + " with fp32 masters" if half else "fp32",
    }
    limit = machine.best * tokens / (arithmetic.TRAINING * needed)
    return summarise(name, tokens / seconds, "tokens/s", limit, "reference with bf16 autocast", details)
