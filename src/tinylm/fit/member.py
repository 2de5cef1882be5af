"""One encoder of a committee, pre-trained and fine-tuned within a time.

It is fine-tuned twice: on the training part of the labelled texts, so that the validation part can say how
good it is, and then, where the time is enough, on all of them. Without pre-training, the validation part also
chooses the number of epochs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

from tinylm.fit import budget
from tinylm.fit.budget import MONOTONIC, Clock
from tinylm.fit.early_stopping import Finetuning, FinetuningLog, finetune_until_best
from tinylm.fit.resume import remembered
from tinylm.model.config import ModelConfig
from tinylm.model.heads import MaskedLanguageModel, SequenceClassifier
from tinylm.model.huggingface import for_shorter_texts, load_masked_language_model, save_model
from tinylm.model.logits import logits_of
from tinylm.system.files import keep, write_json
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.bag_of_words import bag_of_words_run, predict_bags
from tinylm.train.checkpoint import Checkpoint
from tinylm.train.finetune import EncodedTask, Start, finetuning_run
from tinylm.train.loop import Run
from tinylm.train.pretrain import pretrain, pretraining_run
from tinylm.train.recipes import PhaseConfig, Recipe

Loss = Callable[[Tensor, Tensor], Tensor]
# Phases of a training; pre-training has two parts, the first of which bears its name to the user.
WITHOUT, PRETRAINING, FINETUNING = "no pre-training", "pre-training", "fine-tuning"
MASKED, BAGS = "masked language modelling", "bags of words"
DISTILLATION, SELF_TRAINING = "distillation", "self-training"


def last_of(phase: str) -> str:
    """The second part of a fine-tuning, on all labelled texts."""
    return f"{phase}, all texts"


@dataclass(frozen=True)
class Job:
    """How one encoder is to be trained.

    Attributes:
        name: shown beside its progress bars.
        config: the architecture.
        recipe: how it is trained; with `deadline`, its epochs are replaced.
        paragraphs: for pre-training; none where `cache` holds the model that it begins with.
        tokenizer: of all token ids here.
        task: training part and validation part (as `test`) with labels, see `EncodedTask`.
        seed: of everything.
        vectors: that pre-training starts from, see `token_vectors`; None for a recipe without them.
        everything: both parts, to be learned at the end; None where there is no second part, or for an
            encoder that must not know it.
        class_weights: `float32 [labels]`, or None for equal ones.
        deadline: reading of `clock` at which it must be done; None trains the recipe's epochs.
        cache: folder of the pre-trained weights; None keeps none.
        compare: also fine-tune without pre-training.
        unfinished: folder for what is finished of it, should it be interrupted; None keeps nothing.
        clock: returns the time.
    """

    name: str
    config: ModelConfig
    recipe: Recipe
    paragraphs: TokenIds
    tokenizer: Tokenizer
    task: EncodedTask
    seed: int
    vectors: np.ndarray | None = None
    everything: EncodedTask | None = None
    class_weights: np.ndarray | None = None
    deadline: float | None = None
    cache: Path | None = None
    compare: bool = False
    unfinished: Path | None = None
    clock: Clock = MONOTONIC

    @property
    def finished(self) -> bool:
        """Whether an earlier attempt finished it."""
        path = self.kept(last_of(FINETUNING))
        return path is not None and path.exists()

    def kept(self, phase: str) -> Path | None:
        """Where the result of a phase is kept until all is done."""
        return None if self.unfinished is None else self.unfinished / f"{phase}.safetensors"

    def planned(self, what: str, plan: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What measuring decided, in an earlier attempt or now, where `plan` says it (as JSON)."""
        path = None if self.unfinished is None else self.unfinished / f"{what}.json"
        if path is not None and path.is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        found = plan()
        if path is not None:
            write_json(path, found)
        return found

    def checkpoint(self, phase: str, identity: dict[str, Any]) -> Checkpoint | None:
        """The checkpoint of a phase."""
        if self.unfinished is None:
            return None
        return Checkpoint(self.unfinished / f"{phase}.checkpoint", identity)


@dataclass(frozen=True)
class History:
    """How an encoder was trained, for reports.

    Attributes:
        pretraining: for each epoch its mean loss; empty if the weights came from the cache.
        finetuning: from the pre-trained weights.
        without: from random ones; None without `compare`.
        labelled_used: labelled texts that the encoder learned; all of them, those of the validation part
            included, where the time was enough for the second fine-tuning.
    """

    pretraining: list[dict[str, float]]
    finetuning: FinetuningLog
    without: FinetuningLog | None
    labelled_used: int


@dataclass(frozen=True)
class TrainedEncoder:
    """A fine-tuned encoder, and logits of the validation texts by one that has not learned them.

    Attributes:
        model: the encoder.
        validation_logits: `float32 [validation texts, labels]`.
    """

    model: SequenceClassifier
    validation_logits: np.ndarray


@dataclass(frozen=True)
class TrainedMember:
    """A trained encoder; `without` is the same without pre-training, None without `compare`."""

    encoder: TrainedEncoder
    without: TrainedEncoder | None
    history: History


def train_member(job: Job) -> TrainedMember:
    """Pre-train and fine-tune one encoder; at module level, so that it can be sent to other processes."""
    schedule = None
    if job.deadline is not None and not job.finished:
        schedule = make_schedule(job, job.deadline)
        job = replace(job, recipe=schedule.recipe)
    without, without_log = None, None
    if job.compare:  # first, since it mostly stops early, and pre-training can use what it leaves
        plan = schedule.without if schedule else None
        without, without_log, _ = _finetuned_twice(job, job.config, plan, WITHOUT)
    start, pretraining = _pretrained(job, schedule.pretraining_ends if schedule else None)
    plan = schedule.finetuning if schedule else None
    encoder, log, used = _finetuned_twice(job, start, plan, FINETUNING)
    return TrainedMember(encoder, without, History(pretraining, log, without_log, used))


def train_student(job: Job, start: SequenceClassifier, phase: str) -> Finetuning:
    """Let an encoder of the committee become its student (see `distill.py`); all the time is for that."""
    plan = None
    if job.deadline is not None:
        epoch, enough = _measured_epoch(job, start, job.deadline)
        plan = Plan(enough, epoch, job.deadline)
    return _finetuned(job, start, plan, phase)[0]


@dataclass(frozen=True)
class Plan:
    """How long a fine-tuning may take.

    Attributes:
        epochs: at most.
        seconds_per_epoch: of one.
        ends: deadline.
        twice: whether all texts are learned after it. Both arms of a comparison have that time, or neither.
    """

    epochs: int
    seconds_per_epoch: float
    ends: float
    twice: bool = False


@dataclass(frozen=True)
class Schedule:
    """When each phase of an encoder's training ends, in their order; readings of its clock.

    `recipe` is how it is trained, in both arms of a comparison.
    """

    recipe: Recipe
    without: Plan
    pretraining_ends: float
    finetuning: Plan


def make_schedule(job: Job, deadline: float) -> Schedule:
    """Share the time between pre-training and fine-tuning, after measuring an epoch of fine-tuning."""
    both = budget.COMPARED_SHARE if job.compare else budget.FINETUNING_SHARE
    if not len(job.paragraphs):  # and so no pre-training, which would have the rest
        both = 1.0
    share = both / 2 if job.compare else both
    epoch, enough = _measured_epoch(job, job.config, deadline)
    least = budget.ENOUGH_PART * enough * epoch / budget.SLACK
    if job.recipe.finetune.consistency:
        # An encoder that is resumed has less time left, but its two fine-tunings must be alike.
        fits = least <= share * (deadline - job.clock())
        if not job.planned("r-drop", lambda: {"fits": fits})["fits"]:
            job = replace(job, recipe=_without_r_drop(job.recipe))
            epoch, enough = _measured_epoch(job, job.config, deadline)
    now, per_epoch = job.clock(), epoch / budget.SLACK
    left = deadline - now
    twice = job.everything is not None and (1 + _growth(job)) * enough * per_epoch <= share * left
    if twice:
        per_epoch *= 1 + _growth(job)
    finetuning = min(share * left, enough * per_epoch)
    # What fine-tuning leaves of the share of both is for the rival, which needs more epochs.
    most = budget.rival_epochs(enough, len(job.task.test))
    without = min(both * left - finetuning, most * per_epoch)
    return Schedule(
        job.recipe,
        Plan(most, epoch, now + without, twice),
        deadline - finetuning,
        Plan(enough, epoch, deadline, twice),
    )


def _without_r_drop(recipe: Recipe) -> Recipe:
    """For times in which too few epochs with R-Drop fit, see `budget.ENOUGH_PART`."""
    epochs = math.ceil(budget.ENOUGH_PART * recipe.finetune.epochs)
    finetune = recipe.finetune.model_copy(update={"consistency": 0.0, "epochs": epochs})
    return recipe.model_copy(update={"finetune": finetune})


def _measured_epoch(job: Job, start: Start, deadline: float) -> tuple[float, int]:
    """Seconds of an epoch of fine-tuning with its validation, and how many are enough."""
    n_texts, batch_size = len(job.task.train), job.recipe.finetune.batch_size
    loss = loss_of(job.task, job.class_weights)
    model, run = finetuning_run(
        _with_weights(job.task), job.tokenizer, start, job.recipe, seed=job.seed, loss=loss
    )
    begin = job.clock()
    logits_of(model, job.task.test)
    now = job.clock()
    epoch = now - begin + budget.seconds_per_epoch(run, n_texts, batch_size, deadline - now, job.clock)
    return epoch, budget.enough_epochs(job.recipe.finetune.epochs, n_texts, batch_size)


def _pretrained(job: Job, ends: float | None) -> tuple[MaskedLanguageModel, list[dict[str, float]]]:
    """The pre-trained weights: those of an earlier attempt, those of the cache, or new ones."""
    model, facts = remembered(
        job.kept(PRETRAINING),
        lambda: _pretrained_now(job, ends),
        lambda facts: MaskedLanguageModel(job.config),
    )
    # What the checkpoints say of their runs matters to one that resumes, no longer to this one.
    for part in (MASKED, BAGS):
        if (checkpoint := job.checkpoint(part, {})) is not None:
            checkpoint.remove()
    if job.cache is not None and not job.cache.is_dir():
        keep(job.cache, lambda folder: save_model(model, folder))
    return model, facts["history"]


def _pretrained_now(job: Job, ends: float | None) -> tuple[MaskedLanguageModel, dict[str, Any]]:
    if job.cache is not None and job.cache.is_dir():
        model = load_masked_language_model(job.cache)
        return for_shorter_texts(model, job.config.max_tokens), {"history": []}
    bags, masked_ends = job.recipe.bag_of_words, ends
    if ends is not None and bags is not None:
        left = ends - job.clock()
        # One that is resumed has less time left.
        if job.planned("parts", lambda: {BAGS: left >= budget.LEAST_FOR_BAGS})[BAGS]:
            masked_ends = ends - budget.BAGS_SHARE * left
        else:
            bags = None
    model, facts = remembered(
        job.kept(MASKED), lambda: _masked(job, masked_ends), lambda facts: MaskedLanguageModel(job.config)
    )
    if bags is not None:
        _read_bags(job, bags, model, ends)
    return model, facts


@dataclass(frozen=True)
class Reading:
    """How many paragraphs of W_S a part of pre-training reads, and how often."""

    rows: int
    epochs: int


def _masked(job: Job, ends: float | None) -> tuple[MaskedLanguageModel, dict[str, Any]]:
    def run_of(paragraphs: TokenIds) -> Run:
        config, recipe, vectors = job.config, job.recipe, job.vectors
        return pretraining_run(paragraphs, job.tokenizer, config, recipe, seed=job.seed, vectors=vectors)[1]

    reading = Reading(**job.planned(MASKED, lambda: asdict(_reading(job, job.recipe.pretrain, run_of, ends))))
    model, history = pretrain(
        job.paragraphs.take(budget.drawn_rows(len(job.paragraphs), reading.rows, job.seed)),
        job.tokenizer,
        job.config,
        job.recipe.with_epochs(pretrain=reading.epochs),
        seed=job.seed,
        label=f"{job.name}: {PRETRAINING}",
        checkpoint=job.checkpoint(MASKED, asdict(reading)),
        stop=_is_over(job, ends),
        vectors=job.vectors,
    )
    return model, {"history": history}


def _read_bags(job: Job, phase: PhaseConfig, model: MaskedLanguageModel, ends: float | None) -> None:
    """The second part of pre-training, see `bag_of_words.py`."""

    def run_of(paragraphs: TokenIds) -> Run:
        return bag_of_words_run(paragraphs, job.tokenizer, model, job.recipe, seed=job.seed)[1]

    reading = Reading(**job.planned(BAGS, lambda: asdict(_reading(job, phase, run_of, ends))))
    predict_bags(
        job.paragraphs.take(budget.drawn_rows(len(job.paragraphs), reading.rows, job.seed)),
        job.tokenizer,
        model,
        job.recipe.with_epochs(bag_of_words=reading.epochs),
        seed=job.seed,
        label=f"{job.name}: {PRETRAINING}, {BAGS}",
        checkpoint=job.checkpoint(BAGS, asdict(reading)),
        stop=_is_over(job, ends),
    )


def _reading(job: Job, phase: PhaseConfig, run_of: Callable[[TokenIds], Run], ends: float | None) -> Reading:
    """As much of W_S as the time until `ends` is enough for, after measuring some steps."""
    n_texts = len(job.paragraphs)
    if ends is None:
        return Reading(n_texts, phase.epochs)
    left = ends - job.clock()
    epoch = budget.seconds_per_epoch(run_of(job.paragraphs), n_texts, phase.batch_size, left, job.clock)
    left = ends - job.clock()
    epochs, rows = budget.read_into(left, epoch, n_texts, budget.MOST_PRETRAINING, phase.batch_size)
    return Reading(rows, epochs)


def _finetuned_twice(
    job: Job, start: Start, plan: Plan | None, what: str
) -> tuple[TrainedEncoder, FinetuningLog, int]:
    """Fine-tune on the training part, and once more on all texts where the time is enough.

    Returns:
        The encoder, how the first fine-tuning went, and how many texts the encoder learned.
    """
    found, used = _finetuned(job, start, plan, what)
    logits = logits_of(found.model, job.task.test)

    def again() -> tuple[SequenceClassifier, dict[str, Any]]:
        model, learned, epochs = found.model, used, found.log.kept
        everything = job.everything if used == len(job.task.train) else None
        if plan is not None:
            ends = job.clock() + epochs * plan.seconds_per_epoch * _growth(job)
            everything = everything if plan.twice and ends <= plan.ends else None
        if everything is not None:
            last = finetune_until_best(
                _with_weights(everything),
                job.tokenizer,
                start,
                job.recipe.with_epochs(finetune=epochs),
                seed=job.seed,
                label=f"{job.name}: {last_of(what)}",
                loss=loss_of(everything, job.class_weights),
                stop=_is_over(job, plan.ends if plan else None),
            )
            if len(last.log.epochs) == epochs:  # and it was not too slow
                model, learned = last.model, len(everything.train)
        return model, {"config": model.config.model_dump(mode="json"), "learned": learned}

    model, facts = remembered(job.kept(last_of(what)), again, lambda facts: _rebuilt(job, facts))
    return TrainedEncoder(model, logits), found.log, facts["learned"]


def _growth(job: Job) -> float:
    """How much longer an epoch over all texts takes than one over the training part; 0 if it is not taken."""
    return 0.0 if job.everything is None else len(job.everything.train) / len(job.task.train)


def _finetuned(job: Job, start: Start, plan: Plan | None, what: str) -> tuple[Finetuning, int]:
    """The fine-tuned model, and how many training texts the time was enough for."""

    def work() -> tuple[SequenceClassifier, dict[str, Any]]:
        found, used = _finetuned_now(job, start, plan, what)
        return found.model, {
            "config": found.model.config.model_dump(mode="json"),
            "log": asdict(found.log),
            "used": used,
        }

    model, facts = remembered(job.kept(what), work, lambda facts: _rebuilt(job, facts))
    return Finetuning(model, FinetuningLog(**facts["log"])), facts["used"]


def _rebuilt(job: Job, facts: dict[str, Any]) -> SequenceClassifier:
    return SequenceClassifier(ModelConfig.model_validate(facts["config"]), job.task.n_labels)


def _finetuned_now(job: Job, start: Start, plan: Plan | None, what: str) -> tuple[Finetuning, int]:
    task, recipe = job.task, job.recipe
    if plan is not None:
        left = plan.ends - job.clock()
        epochs, rows = budget.fit_into(
            left / (1 + _growth(job)) if plan.twice else left,
            plan.seconds_per_epoch,
            len(task.train),
            plan.epochs,
            recipe.finetune.batch_size,
            job.seed,
        )
        recipe = recipe.with_epochs(finetune=epochs)
        if len(rows) < len(task.train):
            weights = None if task.train_weights is None else task.train_weights[rows]
            train, labels = task.train.take(rows), task.train_labels[rows]
            task = replace(task, train=train, train_labels=labels, train_weights=weights)
    found = finetune_until_best(
        _with_weights(task),
        job.tokenizer,
        start,
        recipe,
        seed=job.seed,
        label=f"{job.name}: {what}",
        loss=loss_of(task, job.class_weights),
        patience=_patience(what, len(task.test)),
        stop=_is_over(job, plan.ends if plan else None),
    )
    return found, len(task.train)


def _patience(what: str, n_validation: int) -> int | None:
    if what == FINETUNING:  # the last epoch is the best one, as far as few validation texts can tell
        return None
    return budget.rival_patience(n_validation) if what == WITHOUT else budget.PATIENCE


def _with_weights(task: EncodedTask) -> EncodedTask:
    """The task with the weight of each training text, if there is one, as a last column of its labels."""
    if task.train_weights is None:
        return task
    columns = np.column_stack([task.train_labels, task.train_weights]).astype(np.float32)
    return replace(task, train_labels=columns)


def loss_of(task: EncodedTask, class_weights: np.ndarray | None = None) -> Loss:
    """The loss of logits and a task's labels, in whatever form these are: numbers, 0 and 1, probabilities.

    Where the task weighs its texts, the labels are as `_with_weights` gives them.
    """
    weights = None if class_weights is None else torch.from_numpy(class_weights)
    several = task.multi_label
    if task.train_weights is None:
        if several:
            return lambda logits, labels: F.binary_cross_entropy_with_logits(logits, labels, weights)
        return lambda logits, labels: F.cross_entropy(logits, labels, weights)

    def weighted(logits: Tensor, labels: Tensor) -> Tensor:
        # The mean over texts, not over weights: a batch of texts with small weights has a small loss.
        if several:
            each = F.binary_cross_entropy_with_logits(logits, labels[:, :-1], weights, reduction="none").mean(
                1
            )
        else:
            each = F.cross_entropy(logits, labels[:, 0].long(), weights, reduction="none")
        return (each * labels[:, -1]).mean()

    return weighted


def _is_over(job: Job, ends: float | None) -> Callable[[], bool] | None:
    return None if ends is None else lambda: job.clock() > ends
