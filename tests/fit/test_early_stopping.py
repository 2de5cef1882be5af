"""Fine-tuning stops when the validation part no longer gets better, and keeps the best epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from helpers.fitting import labelled, recipe
from tinylm.fit import early_stopping
from tinylm.fit.early_stopping import Finetuning, finetune_until_best, score_and_loss
from tinylm.model.config import ModelConfig
from tinylm.system.processes import threads
from tinylm.text.tokenizer import train_tokenizer
from tinylm.train.finetune import EncodedTask


def finetuned(epochs: int, *, validation: bool = True, **options: Any) -> Finetuning:
    texts, names = labelled(96)
    tokenizer = train_tokenizer(texts, 300)
    ids, targets = tokenizer.encode(texts, 24), np.array([name == "sea" for name in names], np.int64)
    held = np.arange(64, 96) if validation else np.arange(0)
    task = EncodedTask(ids.take(np.arange(64)), targets[:64], ids.take(held), targets[held], 2)
    config = ModelConfig(vocab_size=len(tokenizer), layers=1, heads=1, max_tokens=24)
    with threads(1):
        return finetune_until_best(
            task, tokenizer, config, recipe(finetune=epochs), seed=0, label="test", **options
        )


def scores(monkeypatch: pytest.MonkeyPatch, values: Sequence[float]) -> list[np.ndarray]:
    """Let the epochs have these accuracies; returns the validation logits of each."""
    seen: list[np.ndarray] = []

    def scored(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        seen.append(logits)
        return values[len(seen) - 1], 1.0

    monkeypatch.setattr(early_stopping, "score_and_loss", scored)
    return seen


def test_the_weights_of_the_best_epoch_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = scores(monkeypatch, [0.5, 0.9, 0.7, 0.8])
    found = finetuned(4)
    assert (found.log.kept, len(found.log.epochs)) == (2, 4)
    assert found.log.scores == [0.5, 0.9, 0.7, 0.8]
    texts, _ = labelled(96)
    ids = train_tokenizer(texts, 300).encode(texts, 24).take(np.arange(64, 96))
    kept = early_stopping.logits_of(found.model, ids)
    # The working weights of training may be bf16; their masters are kept.
    distances = [float(np.abs(kept - logits).max()) for logits in seen]
    assert int(np.argmin(distances)) == 1 and distances[1] < 0.05 * distances[3]


@pytest.mark.parametrize(
    ("values", "patience", "epochs", "kept"),
    [
        ([0.5, 0.6, 0.7, 0.6, 0.6, 0.9, 0.9], 2, 5, 3),  # what might come later is not waited for
        ([0.5, 0.6, 0.7, 0.6, 0.6, 0.9, 0.8], 3, 7, 6),
        ([0.5] * 7, 2, 7, 7),  # as good and with no larger loss is no worse
    ],
)
def test_training_ends_when_nothing_gets_better(
    values: list[float], patience: int, epochs: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, values)
    found = finetuned(7, patience=patience)
    assert (len(found.log.epochs), found.log.kept, found.log.planned) == (epochs, kept, 7)
    assert found.log.patience == patience and found.log.cut_short == (epochs == 7)


def test_without_a_validation_part_all_epochs_are_taken() -> None:
    found = finetuned(3, validation=False, patience=1)
    assert (len(found.log.epochs), found.log.kept, found.log.scores) == (3, 3, [])


def test_scores_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(50, 3)).astype(np.float32), random.integers(3, size=50)
    accuracy, loss = score_and_loss(logits, labels)
    assert accuracy == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert loss == pytest.approx(log_loss(labels, torch.softmax(torch.tensor(logits), 1).numpy()), rel=1e-5)
    several = (random.random((50, 3)) < 0.5).astype(np.float32)
    accuracy, loss = score_and_loss(logits, several)
    assert accuracy == pytest.approx(accuracy_score(several.ravel(), (logits > 0).ravel()))
    assert loss == pytest.approx(log_loss(several.ravel(), 1 / (1 + np.exp(-logits.ravel()))), rel=1e-5)
