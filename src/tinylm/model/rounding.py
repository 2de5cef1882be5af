"""Weights in 8 bits with a scale for each row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
