"""Which optimizer trains which weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from tinylm.model.encoder import Embeddings
from tinylm.train.recipes import Optimisation


def make_optimizers(model: nn.Module, optimisation: Optimisation) -> list[Optimizer]:
    """AdamW for all weights (the paper), or Muon for the matrices and AdamW for the rest.

    Muon orthogonalises the update of a matrix, so that all its directions learn at
    one speed. Tiny models need that: with AdamW they spend their first epochs
    predicting token frequencies whatever the context, with Muon they leave this
    plateau within one. Embeddings are look-up tables, not matrices in this sense.
    """
    matrices: list[nn.Parameter] = []
    if optimisation.matrix_learning_rate is not None:
        tables = {p for part in model.modules() if isinstance(part, Embeddings) for p in part.parameters()}
        matrices = [p for p in model.parameters() if p.ndim == 2 and p not in tables]
    rest = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    decay = optimisation.weight_decay
    optimizers: list[Optimizer] = [
        torch.optim.AdamW(rest, optimisation.learning_rate, weight_decay=decay, fused=True)
    ]
    if optimisation.matrix_learning_rate is not None:
        optimizers.append(torch.optim.Muon(matrices, optimisation.matrix_learning_rate, decay))
    return optimizers
