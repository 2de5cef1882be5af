# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
# (numba compiles functions that carry no types)
"""Weights in 8 bits with a scale for each row."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tinylm.ops.scalar import HALF, f4, inline, of_rank, rank

FEWEST_ROWS = 3  # what has fewer is not worth rounding


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`int8`, and the scale of each last axis, `[..., 1]`."""
    scale = weight.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
    return (weight / scale).round().to(torch.int8), scale


def is_rounded(weight: Tensor) -> bool:
    """Whether a weight is one that is kept in 8 bits: a matrix, not a bias or a norm."""
    return weight.ndim == 2 and len(weight) >= FEWEST_ROWS


def round_weights(model: nn.Module) -> None:
    """Give the matrices of a model the values that they have in 8 bits, in place."""
    with torch.no_grad():
        for weight in model.parameters():
            if is_rounded(weight):
                rounded, scale = to_int8(weight)
                weight.copy_(rounded * scale)


TOP = 127  # int8 from -127 to 127


@inline
def nearest(row, rounded):
    """`rounded`, int8: the fp32 row in multiples of the scale that is returned, its largest entry TOP."""
    top = rank(f4(1e-12))
    for j in range(len(row)):
        top = max(top, rank(abs(row[j])))
    largest = of_rank(top)
    factor = f4(TOP) / largest
    for j in range(len(row)):
        rounded[j] = np.int8(np.floor(row[j] * factor + HALF))
    return largest / f4(TOP)
