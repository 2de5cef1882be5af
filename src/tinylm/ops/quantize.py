# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"
# (numba compiles functions that carry no types)
"""Rounding to 8 bits with a scale for each row: for storing weights and for multiplying matrices."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tinylm.ops.kernels import raw
from tinylm.ops.scalar import HALF, f4, inline, kernel, load, of_rank, rank
from tinylm.ops.threads import parallel

TOP = 127  # int8 from -127 to 127
SMALLEST = f4(1e-12)  # stands in for the largest entry of a row of zeros
FEWEST_ROWS = 3  # what has fewer is not worth rounding


def to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row, that is each last axis, in multiples of a scale that makes its largest entry 127.

    Args:
        x: `[..., columns]` on the CPU, fp32 or bf16.

    Returns:
        `int8 [..., columns]` and the scales, `float32 [..., 1]`.
    """
    rows = x.detach().contiguous().view(-1, x.shape[-1])
    rounded, scale = torch.empty(rows.shape, dtype=torch.int8), torch.empty(len(rows))
    parallel(_round_rows, len(rows), raw(rows), rounded.numpy(), scale.numpy())
    return rounded.view(x.shape), scale.view(*x.shape[:-1], 1)


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


@kernel
def _round_rows(part, lo, hi, x, rounded, scale):
    row = np.empty(x.shape[1], f4)
    for r in range(lo, hi):
        for j in range(len(row)):
            row[j] = load(x[r, j])
        scale[r] = nearest(row, rounded[r])


@inline
def nearest(row, rounded):
    """`rounded`, int8: the fp32 row in multiples of the scale that is returned, its largest entry TOP."""
    top = rank(SMALLEST)
    for j in range(len(row)):
        top = max(top, rank(abs(row[j])))
    largest = of_rank(top)
    factor = f4(TOP) / largest
    for j in range(len(row)):
        rounded[j] = np.int8(np.floor(row[j] * factor + HALF))
    return largest / f4(TOP)
