"""One member of a committee, pre-trained and fine-tuned within a time.

The labelled texts are split into a training and a validation part. The validation part
chooses the epoch whose weights are kept and nothing else is asked of it here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

from tinylm.fit.budget import SLACK, fit_into, seconds_per_epoch
from tinylm.model.config import ModelConfig
from tinylm.model.heads import MaskedLanguageModel, SequenceClassifier
from tinylm.model.huggingface import load_masked_language_model, save_model
from tinylm.model.logits import logits_of
from tinylm.system.files import keep
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.finetune import EncodedTask, finetuning_run
from tinylm.train.loop import Run, train
from tinylm.train.pretrain import pretrain, pretraining_run
from tinylm.train.recipes import Recipe

# With a budget, recipes are stretched: more epochs than this bring nothing on small data.
MOST_PRETRAINING, MOST_FINETUNING = 30, 30
# A pre-trained model needs no more epochs than this, once they have so many steps. One without
# pre-training, which it is compared with, does better with more.
ENOUGH_EPOCHS, ENOUGH_STEPS = 8, 300
# Share of a member's time for fine-tuning, as far as it can use it; the rest is for pre-training.
FINETUNING_SHARE = 0.4
PATIENCE = 6  # epochs without a better one after which fine-tuning ends


@dataclass(frozen=True)
class Job:
    """What a member is made of.

    Attributes:
        name: shown beside its progress bars.
        config: the architecture.
        recipe: how it is trained; with `deadline`, its epochs are replaced.
        paragraphs: for pre-training.
        vectors: to begin pre-training from, see `token_vectors`; None for a recipe that does not.
        tokenizer: of all token ids here.
        labelled: training and validation part (as `test`) with labels, see `EncodedTask`.
        class_weights: `float32 [labels]`, or None for equal ones.
        multi_label: whether the labels are `float32 [texts, labels]` of 0 and 1.
        seed: of everything.
        deadline: `time.time()` at which it must be done; None trains the recipe's epochs.
        cache: folder that holds the pre-trained weights, or will.
        compare: also fine-tune without pre-training.
    """

    name: str
    config: ModelConfig
    recipe: Recipe
    paragraphs: TokenIds
    vectors: np.ndarray | None
    tokenizer: Tokenizer
    labelled: EncodedTask
    class_weights: np.ndarray | None
    multi_label: bool
    seed: int
    deadline: float | None
    cache: Path | None
    compare: bool


@dataclass(frozen=True)
class Member:
    """A trained member.

    Attributes:
        model: the weights of the best epoch.
        pretraining: for each epoch its mean loss; empty where the weights came from the cache.
        finetuning: for each epoch its mean loss and `validation_score`, where there is validation data.
        without: the same without pre-training, and its model; None where it was not asked for.
        labelled_used: training texts that the time was enough for.
    """

    model: SequenceClassifier
    pretraining: list[dict[str, float]]
    finetuning: list[dict[str, float]]
    without: tuple[SequenceClassifier, list[dict[str, float]]] | None
    labelled_used: int


def train_member(job: Job) -> Member:
    """Pre-train and fine-tune one member; a function of the module, so that other processes find it."""
    pretraining_ends = plan_without = plan = None
    if job.deadline is not None:
        pretraining_ends, plan_without, plan = _schedule(job, job.deadline)
    start, pretraining = _pretrained(job, pretraining_ends)
    without = None
    if job.compare:
        model, history, _ = _finetuned(job, job.config, plan_without, "no pre-training")
        without = model, history
    model, history, used = _finetuned(job, start, plan, "fine-tuning")
    return Member(model, pretraining, history, without, used)


@dataclass(frozen=True)
class _Plan:
    """Of a fine-tuning: epochs at most, what one takes in seconds, and when all must be done."""

    epochs: int
    epoch: float
    ends: float


def _schedule(job: Job, deadline: float) -> tuple[float, _Plan, _Plan]:
    """When pre-training ends, and the plans for fine-tuning without it and with it."""
    task, size = job.labelled, job.recipe.finetune.batch_size
    model, run = _finetuning(job, task, job.config, job.recipe)
    begin = time.perf_counter()
    logits_of(model, task.test)
    validation = time.perf_counter() - begin
    left = deadline - time.time()
    epoch = seconds_per_epoch(run, len(task.train), size, left) + validation
    steps = -(-len(task.train) // size)
    enough = int(np.clip(-(-ENOUGH_STEPS // steps), ENOUGH_EPOCHS, MOST_FINETUNING))
    epochs = enough + (MOST_FINETUNING if job.compare else 0)
    share = FINETUNING_SHARE * (1.5 if job.compare else 1)
    finetuning = min(share * left, epochs * epoch / SLACK)
    return (
        deadline - finetuning,
        _Plan(MOST_FINETUNING, epoch, deadline - finetuning * enough / epochs),
        _Plan(enough, epoch, deadline),
    )


def _finetuning(
    job: Job, task: EncodedTask, start: MaskedLanguageModel | ModelConfig, recipe: Recipe
) -> tuple[SequenceClassifier, Run]:
    return finetuning_run(task, job.tokenizer, start, recipe, seed=job.seed, loss=_loss_of(job))


def _pretrained(job: Job, ends: float | None) -> tuple[MaskedLanguageModel, list[dict[str, float]]]:
    """The pre-trained weights: those of the cache, or new ones."""
    if job.cache is not None and job.cache.is_dir():
        return load_masked_language_model(job.cache), []
    recipe, rows = job.recipe, np.arange(len(job.paragraphs))
    if ends is not None:
        size = recipe.pretrain.batch_size
        run = pretraining_run(
            job.paragraphs, job.tokenizer, job.config, recipe, seed=job.seed, vectors=job.vectors
        )[1]
        epoch = seconds_per_epoch(run, len(rows), size, ends - time.time())
        del run  # it holds another model and its optimizers
        epochs, rows = fit_into(ends - time.time(), epoch, len(rows), MOST_PRETRAINING, size, job.seed)
        recipe = recipe.with_epochs(pretrain=epochs)
    paragraphs = job.paragraphs if len(rows) == len(job.paragraphs) else job.paragraphs.take(rows)
    model, history = pretrain(
        paragraphs,
        job.tokenizer,
        job.config,
        recipe,
        seed=job.seed,
        label=f"{job.name}: pre-training",
        stop=_is_over(ends),
        vectors=job.vectors,
    )
    if job.cache is not None:
        keep(job.cache, lambda folder: save_model(model, folder))
    return model, history


def _finetuned(
    job: Job, start: MaskedLanguageModel | ModelConfig, plan: _Plan | None, what: str
) -> tuple[SequenceClassifier, list[dict[str, float]], int]:
    """The weights of the epoch that is best on the validation part."""
    task, recipe = job.labelled, job.recipe
    if plan is not None:
        size = recipe.finetune.batch_size
        epochs, rows = fit_into(
            plan.ends - time.time(), plan.epoch, len(task.train), plan.epochs, size, job.seed
        )
        recipe = recipe.with_epochs(finetune=epochs)
        if len(rows) < len(task.train):
            task = replace(task, train=task.train.take(rows), train_labels=task.train_labels[rows])
    model, run = _finetuning(job, task, start, recipe)
    best: tuple[float, float] = (-np.inf, -np.inf)
    best_epoch, weights = 0, None

    def validate() -> dict[str, float]:
        nonlocal best, best_epoch, weights
        score, negative_loss = _score(logits_of(model, task.test), task.test_labels, job.multi_label)
        if (score, negative_loss) >= best:
            best, best_epoch, weights = (score, negative_loss), len(run.state.history), run.weights()
        return {"validation_score": score, "validation_loss": -negative_loss}

    over = _is_over(plan.ends if plan else None)

    def stop() -> bool:
        waited = len(run.state.history) - 1 - best_epoch
        return (over is not None and over()) or (weights is not None and waited >= PATIENCE)

    history = train(run, f"{job.name}: {what}", validate if len(task.test) else None, stop)
    if weights is not None:
        model.load_state_dict(weights)
    return model, history, len(task.train)


def _loss_of(job: Job) -> Callable[[Tensor, Tensor], Tensor]:
    weights = None if job.class_weights is None else torch.from_numpy(job.class_weights)
    if job.multi_label:
        return lambda logits, labels: F.binary_cross_entropy_with_logits(logits, labels, weights)
    return lambda logits, labels: F.cross_entropy(logits, labels, weights)


def _score(logits: np.ndarray, labels: np.ndarray, multi_label: bool) -> tuple[float, float]:
    """Accuracy and negative loss; of several labels per text, the share of right yes or no."""
    field, truth = torch.from_numpy(logits), torch.from_numpy(labels)
    if multi_label:
        right = ((field > 0) == (truth > 0)).float().mean()
        return float(right), -float(F.binary_cross_entropy_with_logits(field, truth))
    return float((field.argmax(1) == truth).float().mean()), -float(F.cross_entropy(field, truth))


def _is_over(ends: float | None) -> Callable[[], bool] | None:
    return None if ends is None else lambda: time.time() > ends
