"""Single-head performance: what each head of a classifier's last block can do alone.

The paper's discussion asks what single heads do, as its authors measured it for vision transformers. A
head is silenced where its columns of the attention's output projection are zero; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from tinylm.model.heads import SequenceClassifier
from tinylm.model.logits import logits_of
from tinylm.ops import HEAD_WIDTH
from tinylm.paper.data import TaskData
from tinylm.train.finetune import accuracy_of


def single_heads(model: SequenceClassifier, data: TaskData) -> dict[str, Any]:
    """Accuracy of each head alone, and of the classifier as its weakest heads are pruned.

    Heads are ranked by their accuracy alone on validation texts.

    Returns:
        `alone`: test accuracy `[heads][labels]`; `validation`: accuracy of each head alone; `kept`: test
        accuracy with 0, 1, ... all heads, the best ones first.
    """
    test, labels = data.encoded.test, data.encoded.test_labels

    def per_label(logits: np.ndarray) -> list[float]:
        right = logits.argmax(1) == labels
        return [round(float(right[labels == label].mean()), 4) for label in range(data.encoded.n_labels)]

    alone, validation = [], []
    with silencing(model) as keep:
        heads = range(model.config.heads)
        for head in heads:
            keep([head])
            alone.append(per_label(logits_of(model, test)))
            validation.append(accuracy_of(logits_of(model, data.validation), data.validation_labels))
        best_first = sorted(heads, key=lambda head: -validation[head])
        kept = []
        for count in range(len(heads) + 1):
            keep(best_first[:count])
            kept.append(accuracy_of(logits_of(model, test), labels))
    return {"alone": alone, "validation": validation, "kept": kept}


@contextmanager
def silencing(model: SequenceClassifier) -> Iterator[Callable[[Iterable[int]], None]]:
    """Yields a function that lets only the given heads of the last block speak; all do so afterwards."""
    block: Any = model.encoder.blocks[-1]
    weight: torch.Tensor = block.attention.output.weight
    before = weight.detach().clone()

    def keep(heads: Iterable[int]) -> None:
        mask = torch.zeros(model.config.heads, device=before.device)
        mask[list(heads)] = 1
        with torch.no_grad():
            weight.copy_(before * mask.repeat_interleave(HEAD_WIDTH))

    try:
        yield keep
    finally:
        with torch.no_grad():
            weight.copy_(before)
