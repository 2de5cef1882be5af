"""Convolutions of many rows by way of frequencies: the same numbers for less arithmetic.

A 16x3 kernel of Table 8 multiplies every row of an image by 16 rows of weights. Written as
a sum of waves along the rows, each frequency is multiplied by one complex row, four
products. A piece of 64 rows, 49 of them results, has 33 frequencies: 2.7 products for a row
in place of 16. The transforms there and back are matrix products too, with the matrix of
the real Fourier transform.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

# Rows of a piece of the image that is transformed at a time; short texts need a shorter one.
PIECES = (32, 48, 64)


def fourier_is_cheaper(channels: int, rows: int) -> bool:
    """Whether a kernel of so many rows works faster this way on an image of so many channels."""
    return channels > 1 and rows >= 8


class Waves(NamedTuple):
    """What a convolution needs for pieces of a number of rows.

    Attributes:
        transform: `[2 * frequencies, rows]`: real and imaginary part of each frequency.
        inverse: `[rows, 2 * frequencies]`: the rows again.
        factor: `[frequencies, kernel's columns * 2 * in, 2 * out]`: the kernel's own.
    """

    transform: Tensor
    inverse: Tensor
    factor: Tensor


class FourierConvolution:
    """`F.conv2d` of images `[texts, rows, columns, channels]`, along the rows by frequencies.

    Args:
        weight: `[out, in, rows, columns]` of the kernel, at most 16 rows; its type is that of
            the products.
        bias: `[out]`.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias
        self.waves: dict[int, Waves] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """`[texts, rows, columns, in]` to `[texts, rows - ... + 1, columns - ... + 1, out]`, no padding."""
        # One text at a time: a piece takes some 30 MB on its way.
        return torch.stack([self._of_text(text) for text in x])

    @staticmethod
    def operations(kernel: tuple[int, int], channels: int, out: int, columns: int, wanted: int) -> int:
        """Multiplications and additions for `wanted` rows and `columns` columns of the result."""
        rows, step, pieces = _pieces(wanted, kernel[0])
        parts = 2 * (rows // 2 + 1)
        there = parts * rows * (columns + kernel[1] - 1) * channels
        products = parts * 2 * kernel[1] * channels * columns * out
        back = min(step, wanted) * parts * columns * out
        return 2 * pieces * (there + products + back)

    def _of_text(self, x: Tensor) -> Tensor:
        reach, columns = self.weight.shape[2:]
        wanted = len(x) - reach + 1
        rows, step, pieces = _pieces(wanted, reach)
        if rows not in self.waves:
            self.waves[rows] = _waves(self.weight, rows)
        transform, inverse, factor = self.waves[rows]
        x = F.pad(x, (0, 0, 0, 0, 0, pieces * step + reach - 1 - len(x)))
        windows = x.unfold(0, rows, step).movedim(-1, 1)  # [pieces, rows, columns, in]
        waves = (transform @ windows.flatten(2)).view(pieces, len(factor), 2, *x.shape[1:])
        # Side by side what meets the kernel: [frequencies, pieces, columns, kernel's columns, 2, in].
        beside = waves.unfold(3, columns, 1).permute(1, 0, 3, 5, 2, 4)
        products = torch.bmm(beside.reshape(len(factor), -1, factor.shape[1]), factor)
        parts = products.view(*beside.shape[:3], 2, -1).permute(1, 0, 3, 2, 4)
        out = inverse[: min(step, wanted)] @ parts.reshape(pieces, 2 * len(factor), -1)
        return out.view(-1, beside.shape[2], len(self.bias))[:wanted] + self.bias


def _pieces(wanted: int, reach: int) -> tuple[int, int, int]:
    """Rows of a piece, those of the result that it gives, and how many pieces give `wanted` rows."""
    rows = next((rows for rows in PIECES if rows - reach + 1 >= wanted), PIECES[-1])
    step = rows - reach + 1
    return rows, step, -(-wanted // step)


def _waves(weight: Tensor, rows: int) -> Waves:
    out, channels, reach, columns = weight.shape
    frequencies = rows // 2 + 1
    angles = torch.arange(rows)[:, None] * torch.arange(frequencies) * (2 * math.pi / rows)
    transform = torch.stack([angles.cos(), -angles.sin()], 2).flatten(1).T
    share = torch.full((frequencies,), 2 / rows)  # a frequency stands for its negative too,
    share[0] = share[-1] = 1 / rows  # the first and the last have none
    inverse = torch.stack([share * angles.cos(), -share * angles.sin()], 2).flatten(1)
    # A convolution of networks is a correlation: it takes the conjugate of the spectrum.
    kernel = weight.float().permute(2, 1, 0, 3).flatten(1)
    spectrum = (transform[:, :reach] @ kernel).view(frequencies, 2, channels, out, columns)
    real, imaginary = spectrum[:, 0].permute(0, 3, 1, 2), -spectrum[:, 1].permute(0, 3, 1, 2)
    # Of the input's parts, real and imaginary, before each channel in; of the output's, before out.
    factor = torch.stack([torch.cat([real, imaginary], 3), torch.cat([-imaginary, real], 3)], 2)
    return Waves(*(part.to(weight.dtype) for part in (transform, inverse, factor.flatten(1, 3))))
