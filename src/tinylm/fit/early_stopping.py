"""Fine-tuning with a validation part, which says how good each epoch is and, if wanted, when to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

from tinylm.fit.budget import PATIENCE
from tinylm.model.heads import SequenceClassifier
from tinylm.model.logits import logits_of
from tinylm.ops.device import CPU
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.finetune import EncodedTask, Start, finetuning_run
from tinylm.train.loop import train
from tinylm.train.recipes import Recipe


@dataclass(frozen=True)
class FinetuningLog:
    """How a fine-tuning went.

    Attributes:
        epochs: for each epoch its mean loss and, with a validation part, `validation_score` and
            `validation_loss`.
        kept: the epoch whose weights were kept, from 1.
        planned: epochs that would have been taken if the validation score had kept rising.
        patience: epochs without a better score that would have ended it; None took all that were planned.
    """

    epochs: list[dict[str, float]]
    kept: int
    planned: int
    patience: int | None = None

    @property
    def scores(self) -> list[float]:
        """Of the epochs on the validation part; empty without one."""
        return [epoch["validation_score"] for epoch in self.epochs if "validation_score" in epoch]

    @property
    def cut_short(self) -> bool:
        """Whether its epochs, or its time, were over before its patience was."""
        return self.patience is not None and len(self.epochs) - self.kept < self.patience


@dataclass(frozen=True)
class Finetuning:
    """A fine-tuned model and how it came about."""

    model: SequenceClassifier
    log: FinetuningLog


def finetune_until_best(
    task: EncodedTask,
    tokenizer: Tokenizer,
    start: Start,
    recipe: Recipe,
    *,
    seed: int,
    label: str,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    patience: int | None = PATIENCE,
    stop: Callable[[], bool] | None = None,
    watch: Callable[[float], bool] | None = None,
    device: torch.device = CPU,
) -> Finetuning:
    """Fine-tune until `patience` epochs in a row brought nothing better, or the recipe's epochs are over.

    The weights of the best epoch are kept, those of the last without `patience` or a validation part.

    Args:
        task: training texts, and the validation texts as its `test`; without any, all epochs are taken.
        tokenizer: the one that encoded them.
        start: see `Start`.
        recipe: its `finetune` phase; the learning rate falls as if all epochs were taken.
        seed: determines new weights, order and dropout.
        label: shown beside the progress bar.
        loss: of logits `float32 [texts, labels]` and rows of the task's labels.
        patience: epochs; None takes all that the recipe has.
        stop: called after every step; True ends the training there.
        watch: called with the validation score of every epoch; True ends the training there.
        device: see `Run`.
    """
    model, run = finetuning_run(task, tokenizer, start, recipe, seed=seed, loss=loss, device=device)
    best, kept, weights, ended = (-np.inf, -np.inf), 0, None, False

    def validate() -> dict[str, float]:
        nonlocal best, kept, weights, ended
        found = score_and_loss(logits_of(model, task.test), task.test_labels)
        if patience is not None and (found[0], -found[1]) >= best:
            best, kept, weights = (found[0], -found[1]), len(run.state.history) + 1, run.weights()
        ended = watch is not None and watch(found[0])
        return {"validation_score": found[0], "validation_loss": found[1]}

    def over() -> bool:
        waited = len(run.state.history) - kept
        gave_up = patience is not None and weights is not None and waited >= patience
        return ended or gave_up or (stop is not None and stop())

    history = train(run, label, validate if len(task.test) else None, over)
    if weights is not None:
        model.load_state_dict(weights)
    return Finetuning(model, FinetuningLog(history, kept or len(history), recipe.finetune.epochs, patience))


def score_and_loss(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy and mean loss.

    With several labels per text, accuracy is the share of correct decisions over all texts and labels.

    Args:
        logits: `float32 [texts, labels]`.
        labels: `int64 [texts]`, or `float32 [texts, labels]` of 0 and 1.
    """
    found, truth = torch.from_numpy(logits), torch.from_numpy(labels)
    if labels.ndim == 2:
        right = ((found > 0) == (truth > 0)).float().mean()
        return float(right), float(F.binary_cross_entropy_with_logits(found, truth))
    return float((found.argmax(1) == truth).float().mean()), float(F.cross_entropy(found, truth))
