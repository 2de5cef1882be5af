"""Logits of many texts, of one model or of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tinylm.model.protocol import Member
from tinylm.ops.packed import Batch, make_batch
from tinylm.ops.threads import in_threads
from tinylm.text.store import TokenIds

BATCH = 64  # texts


def logits_of(model: Member, paragraphs: TokenIds) -> np.ndarray:
    """Raw output fields of each paragraph, `float32 [paragraphs, labels]`."""
    out: np.ndarray = logits_of_all([model], paragraphs, model.config.max_tokens)[0]
    return out


@torch.inference_mode()
def logits_of_all(models: Sequence[Member], paragraphs: TokenIds, max_tokens: int) -> np.ndarray:
    """The same of models that share labels and vocabulary, `float32 [models, paragraphs, labels]`.

    Paragraphs of similar length share a batch, so that the attention pads little.
    """
    for model in models:
        if model.training:  # asking costs nothing, telling all parts takes longer than a small model
            model.eval()
    out = np.zeros((len(models), len(paragraphs), models[0].n_labels), np.float32)
    order = np.argsort(paragraphs.lengths, kind="stable")
    for i in range(0, len(order), BATCH):
        batch, rows = make_batch(paragraphs, order[i : i + BATCH], max_tokens)
        for member, logits in enumerate(_answers(models, batch)):
            out[member, rows] = logits
    return out


def _answers(models: Sequence[Member], batch: Batch) -> list[np.ndarray]:
    """Logits of one batch, of each model."""

    def answer(model: Member) -> np.ndarray:
        with torch.inference_mode():  # every thread has to say so
            logits: np.ndarray = model(batch).float().cpu().numpy()
            return logits

    # Our kernels share out a batch among the threads text by text. One text cannot be shared
    # out; there the models answer side by side.
    if len(batch) == 1 and all(model.is_single_threaded for model in models):
        return in_threads(answer, models)
    return [answer(model) for model in models]
