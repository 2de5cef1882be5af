"""Weights in 8 bits with a scale for each row."""

from __future__ import annotations

import numpy as np

TOP = 127  # int8 from -127 to 127
FEWEST_ROWS = 3  # a matrix with fewer is not worth rounding


def to_int8(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`int8`, and the fp32 scale of each last axis, `[..., 1]`."""
    largest = np.abs(weight).max(-1, keepdims=True)
    scale = np.maximum(largest, np.float32(1e-12)) / np.float32(TOP)
    return np.rint(weight / scale).astype(np.int8), scale


def is_rounded(weight: np.ndarray) -> bool:
    """Whether a weight is one that is kept in 8 bits: a matrix, not a bias or a norm."""
    return weight.ndim == 2 and len(weight) >= FEWEST_ROWS
