"""Suites `train-cpu` and `train-gpu`: training beside the authors' way, in real tokens per second.

Ours are the steps of `pretraining_run` and `finetuning_run` with the paper's recipe. A
round is one epoch of a few batches on each side: of ours, and of the reference in fp32 and
with autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from tinylm.bench.measure import Machine, Measured, alternate, summarise
from tinylm.bench.reference import (
    ReferenceProcess,
    ReferenceRun,
    finetuning_reference,
    pretraining_reference,
)
from tinylm.bench.texts import N_LABELS, openings, sentences
from tinylm.model import flops
from tinylm.model.config import Convolution, ModelConfig
from tinylm.ops.autograd import IGNORED
from tinylm.ops.device import CPU, gains_by_int8, supports_bf16
from tinylm.train.finetune import EncodedTask, finetuning_run
from tinylm.train.loop import Run
from tinylm.train.pretrain import pretraining_run
from tinylm.train.recipes import RECIPES

RECIPE = RECIPES["paper"]
SEED = 0
CUDA = torch.device("cuda")
# Batches of one epoch. A GPU takes them faster, and records a step for each shape of its
# inputs: the warm-up should have met most of them.
BATCHES = {"cpu": 2, "cuda": 150}
WARM_UP = {"cpu": 1, "cuda": 3}  # epochs of ours
W_S, EPOCHS = 90_000, 50  # of the paper's largest pre-training


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


def prepare_case(name: str, device: torch.device = CPU) -> PreparedCase:
    """Prepare one of CASES."""
    case, batches = CASES[name], BATCHES[device.type]
    source, texts = openings(case.vocabulary)
    config = RECIPE.model_config_for(len(source.tokenizer), **case.shape)
    if case.finetune:
        count = batches * RECIPE.finetune.batch_size
        chosen = sentences()
        encoded = source.tokenizer.encode(chosen.texts[:count], config.max_tokens)
        labels = chosen.labels[:count]
        task = EncodedTask(encoded, labels, encoded, labels, N_LABELS)  # nothing is tested
        texts = f"{chosen.source}, {texts.split(', ')[1]}"
        _, run = finetuning_run(task, source.tokenizer, config, RECIPE, seed=SEED, device=device)
        make = partial(finetuning_reference, task, config, RECIPE, seed=SEED, device=device)
        return PreparedCase(config, run, make, texts)
    count = min(batches * RECIPE.pretrain.batch_size, len(source.paragraphs))
    rows = np.random.default_rng(SEED).choice(len(source.paragraphs), count, replace=False)
    paragraphs = source.paragraphs.take(rows)
    _, run = pretraining_run(paragraphs, source.tokenizer, config, RECIPE, seed=SEED, device=device)
    make = partial(
        pretraining_reference, paragraphs, source.tokenizer, config, RECIPE, seed=SEED, device=device
    )
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


def measure_gpu_case(name: str, rounds: int, machine: Machine) -> Measured:
    """Measure one of CASES on a GPU, in this process: the C library's allocator matters little there."""
    prepared = prepare_case(name, CUDA)
    details = {"texts": prepared.texts, "gpu": torch.cuda.get_device_name()}
    return compare(name, prepared.config, prepared.run, prepared.reference(), rounds, machine, details, CUDA)


def compare(
    name: str,
    config: ModelConfig,
    run: Run,
    reference: ReferenceRun | ReferenceProcess,
    rounds: int,
    machine: Machine,
    details: dict[str, Any],
    device: torch.device = CPU,
) -> Measured:
    """Train both in turn for `rounds` epochs, after a warm-up of some epochs of ours and a step of theirs.

    The authors use autocast on a GPU, so there that is the reference and fp32 the other one. On
    a CPU that does not multiply bf16, autocast would take hours and show nothing, so there is no other.
    """
    steps = range(run.steps_per_epoch)
    lengths, needed = np.zeros(0, np.int64), 0.0
    for step in steps:
        inputs = reference.inputs(step)
        batch_lengths = inputs["attention_mask"].sum(1).numpy()
        if inputs["labels"].ndim == 2:
            masked = (inputs["labels"] != IGNORED).sum(1).numpy()
            needed += flops.masked_language_model(config, batch_lengths, masked)
        else:
            needed += flops.sequence_classifier(config, batch_lengths, N_LABELS)
        lengths = np.append(lengths, batch_lengths)
    tokens = int(lengths.sum())

    def ours() -> None:
        losses = [run.start_step() for _ in steps]  # as `train` takes them
        losses[-1].item()

    def theirs(autocast: bool) -> None:
        first = run.state.step - len(steps)  # of the epoch that ours has just trained
        for step in steps:
            reference.step(first + step, autocast=autocast)

    for _ in range(WARM_UP[device.type]):
        ours()
    on_gpu = device.type == "cuda"
    modes = [on_gpu, not on_gpu] if on_gpu or supports_bf16() else [False]
    for autocast in modes:
        reference.step(0, autocast=autocast)
    seconds = alternate([ours, *(partial(theirs, autocast) for autocast in modes)], rounds)
    half = torch.bfloat16 in {parameter.dtype for parameter in run.model.parameters()}
    details = details | {
        "texts_per_batch": len(lengths) // len(steps),
        "tokens_per_text": round(tokens / len(lengths), 1),
        "precision": _precision(half, on_gpu),
    }
    limit = machine.best * tokens / (flops.TRAINING * needed)
    other = None
    if len(modes) > 1:
        other = "reference in fp32" if on_gpu else "reference with bf16 autocast"
    if on_gpu:
        epoch = float(np.median(seconds[:, 0]))
        details["utilisation"] = round(tokens / epoch / limit, 3)
        if name.startswith("mlm"):
            minutes = epoch / len(lengths) * W_S * EPOCHS / 60
            details["minutes for W_S = 90,000 x 50 epochs"] = round(minutes, 1)
    return summarise(name, tokens / seconds, "tokens/s", limit, other, details)


def _precision(half: bool, on_gpu: bool) -> str:
    if not half:
        return "fp32"
    return ("bf16 and int8" if gains_by_int8() and not on_gpu else "bf16") + " with fp32 masters"
