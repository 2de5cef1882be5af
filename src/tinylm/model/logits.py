"""Logits of many texts from PyTorch modules, for the measurements between the epochs of a training."""

from __future__ import annotations

import numpy as np
import torch

from tinylm.model.heads import SequenceClassifier
from tinylm.ops.packed import make_batch
from tinylm.text.store import TokenIds

BATCH = 64  # texts


@torch.inference_mode()
def logits_of(model: SequenceClassifier, paragraphs: TokenIds) -> np.ndarray:
    """Logits of each paragraph, `float32 [paragraphs, labels]`.

    Paragraphs of similar length share a batch, so that the attention pads little.
    """
    if (
        model.training
    ):  # reading the flag costs nothing; setting it in all parts takes longer than a small model
        model.eval()
    out = np.zeros((len(paragraphs), model.n_labels), np.float32)
    order = np.argsort(paragraphs.lengths, kind="stable")
    for i in range(0, len(order), BATCH):
        batch, rows = make_batch(paragraphs, order[i : i + BATCH], model.config.max_tokens)
        out[rows] = model(batch).float().cpu().numpy()
    return out
