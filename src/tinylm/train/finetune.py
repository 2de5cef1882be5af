"""Fine-tuning a classifier, from pre-trained or from random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

from tinylm.model.config import ModelConfig, check_vocabulary
from tinylm.model.heads import MaskedLanguageModel, SequenceClassifier
from tinylm.model.logits import logits_of
from tinylm.ops.device import CPU
from tinylm.ops.packed import make_batch
from tinylm.text.store import TokenIds
from tinylm.text.tasks import Task
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.checkpoint import Checkpoint
from tinylm.train.loop import Run, train
from tinylm.train.masking import Inputs, StaticInputs, epoch_batches
from tinylm.train.recipes import Recipe

# What a fine-tuning begins with: a pre-trained model, a classifier with the same labels, of which a copy is
# trained further, or an architecture to train without pre-training.
Start = MaskedLanguageModel | SequenceClassifier | ModelConfig


@dataclass(frozen=True)
class EncodedTask:
    """A task's texts as token ids; labels as in `Task`, or whatever another loss compares logits with.

    `train_weights` (`float32 [train texts]`, None for equal ones) is for losses that weigh texts.
    """

    train: TokenIds
    train_labels: np.ndarray
    test: TokenIds
    test_labels: np.ndarray
    n_labels: int
    train_weights: np.ndarray | None = None

    @property
    def multi_label(self) -> bool:
        """Whether a text can have several labels."""
        return self.test_labels.ndim == 2


def encode_task(task: Task, tokenizer: Tokenizer, max_tokens: int = 128) -> EncodedTask:
    """Tokenize a task, texts cut to `max_tokens` tokens."""
    return EncodedTask(
        tokenizer.encode(task.train_texts, max_tokens),
        task.train_labels,
        tokenizer.encode(task.test_texts, max_tokens),
        task.test_labels,
        len(task.label_names),
    )


@dataclass(frozen=True)
class Finetuned:
    """What one fine-tuning gave.

    Attributes:
        model: after the last epoch; nothing about it was chosen on test data.
        test_logits: `float32 [test texts, labels]`.
        accuracy: of these, `final` in reports.
        best_epoch_accuracy: the highest test accuracy of any epoch measured. The paper
            may report this; it is chosen on test data and never used for a decision.
        history: per epoch the mean training loss and, where measured, the test accuracy.
    """

    model: SequenceClassifier
    test_logits: np.ndarray
    accuracy: float
    best_epoch_accuracy: float
    history: list[dict[str, float]]


def finetune(
    task: EncodedTask,
    tokenizer: Tokenizer,
    start: Start,
    recipe: Recipe,
    *,
    seed: int,
    label: str = "fine-tuning",
    checkpoint: Checkpoint | None = None,
    test_each_epoch: bool = True,
    device: torch.device = CPU,
) -> Finetuned:
    """Fine-tune all weights with cross-entropy (section 2 of the paper).

    Args:
        task: the encoded texts and labels.
        tokenizer: the one that encoded them.
        start: see `Start`.
        recipe: its `finetune` phase.
        seed: determines new weights, order and dropout.
        label: shown beside the progress bar.
        checkpoint: see `Run`.
        test_each_epoch: measure the test accuracy after every epoch, which takes about
            half as long as the training; only the last one's is known otherwise.
        device: see `Run`.
    """
    model, run = finetuning_run(
        task, tokenizer, start, recipe, seed=seed, checkpoint=checkpoint, device=device
    )

    def test_accuracy() -> dict[str, float]:
        return {"test_accuracy": accuracy_of(logits_of(model, task.test), task.test_labels)}

    history = train(run, label, test_accuracy if test_each_epoch else None)
    logits = logits_of(model, task.test)
    model.to(CPU)
    accuracy = accuracy_of(logits, task.test_labels)
    # The epochs were measured on the working weights, the last result on their masters.
    best = max([accuracy, *(record["test_accuracy"] for record in history if test_each_epoch)])
    return Finetuned(model, logits, accuracy, best, history)


def finetuning_run(
    task: EncodedTask,
    tokenizer: Tokenizer,
    start: Start,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Checkpoint | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    device: torch.device = CPU,
) -> tuple[SequenceClassifier, Run]:
    """What `finetune` trains, before its first step; arguments as there.

    `loss` compares logits (`float32 [texts, labels]`) with rows of `task.train_labels`.
    """
    config = start if isinstance(start, ModelConfig) else start.config
    config = config.model_copy(update={"dropout": recipe.finetune.dropout, "pooling": recipe.pooling})
    check_vocabulary(config, tokenizer)
    torch.manual_seed(seed)
    model = SequenceClassifier(config, task.n_labels)
    if isinstance(start, MaskedLanguageModel):  # pooler and output layer stay new
        model.encoder.load_state_dict(start.encoder.state_dict())
    elif isinstance(start, SequenceClassifier):
        model.load_state_dict(start.state_dict())
    batch_size, consistency = recipe.finetune.batch_size, recipe.finetune.consistency
    labels = torch.from_numpy(task.train_labels)

    @lru_cache(maxsize=1)
    def batches(epoch: int) -> list[np.ndarray]:
        return epoch_batches(len(task.train), batch_size, seed, epoch)

    def inputs_of(epoch: int, step: int) -> Inputs:
        rows = batches(epoch)[step]
        if consistency:  # copies stay side by side, since sorting by length is stable
            rows = np.repeat(rows, 2)
        batch, rows = make_batch(task.train, rows, config.max_tokens)
        return Inputs(batch, labels[rows])

    def loss_of(inputs: Inputs | StaticInputs) -> Tensor:
        logits = model(inputs.batch).float()
        if not consistency:
            return loss(logits, inputs.targets)
        # The weight rises for half of the run: at first there is nothing to agree on, and a large weight
        # would hold all logits at zero.
        difference = disagreement(logits[0::2], logits[1::2], multi_label=task.multi_label)
        weight = consistency * (2 * run.progress).clamp(max=1)
        return loss(logits, inputs.targets) + weight * difference

    steps_per_epoch = -(-len(task.train) // batch_size)
    run = Run(model, recipe.finetune, steps_per_epoch, inputs_of, loss_of, seed, checkpoint, device)
    return model, run


def disagreement(first: Tensor, second: Tensor, *, multi_label: bool) -> Tensor:
    """Half the sum of both Kullback-Leibler divergences between two predictions, mean over texts.

    Args:
        first, second: logits, `float32 [texts, labels]`.
        multi_label: each label is a yes or no of its own, and their divergences are summed.
    """
    if multi_label:
        first, second = (torch.stack([F.logsigmoid(x), F.logsigmoid(-x)], -1) for x in (first, second))
    else:
        first, second = first.log_softmax(1), second.log_softmax(1)
    # KL(p, q) + KL(q, p) is the sum of (p - q) (log p - log q).
    return ((first.exp() - second.exp()) * (first - second)).flatten(1).sum(1).mean() / 2


def accuracy_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest logit is the label's."""
    return float(np.mean(logits.argmax(1) == labels))
