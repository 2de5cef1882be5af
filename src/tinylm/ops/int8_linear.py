# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated, misc"
# (numba compiles functions that carry no types)
"""Linear layers that multiply in int8 while they train.

Processors multiply int8 matrices at twice the rate of bf16. A linear layer needs three products.
Two of them, the output and the gradient of the input, are taken in int8, as in SwitchBack
(Wortsman et al. 2023). The third, the gradient of the weights, sums over all tokens of a batch and
stays in bf16.

Each row of both factors has its own scale, so that its largest entry becomes 127. An output is then
off by about one percent, far less than dropout changes it. The entries of gradients differ in size
much more. They are rounded up or down at random, so that they are right on average; otherwise the
many small ones would all become zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function

from tinylm.ops.autograd import has_kernels
from tinylm.ops.device import gains_by_int8
from tinylm.ops.kernels import random_seed, raw
from tinylm.ops.linear import column_products, linear, row_products
from tinylm.ops.quantize import TOP
from tinylm.ops.scalar import HALF, f4, hashed, kernel, load, of_rank, rank, store, u4
from tinylm.ops.threads import most_parts, parallel

# With fewer rows, or weights narrower in one direction, rounding takes longer than the faster product saves.
ROWS, WIDTH = 256, 256
SMALLEST = f4(1e-30)  # stands in for the largest entry of a row of zeros


class Linear(nn.Linear):
    """`nn.Linear`; in int8 where it is wide and trains on many rows in bf16, on a CPU that gains by it."""

    def forward(self, x: Tensor) -> Tensor:
        """`[rows, in]` to `[rows, out]`."""
        large = len(x) >= ROWS and min(self.weight.shape) >= WIDTH
        if (
            large
            and x.dtype == torch.bfloat16
            and has_kernels(x)
            and torch.is_grad_enabled()
            and gains_by_int8()
        ):
            return _Linear.apply(x, self.weight, self.bias)
        return linear(x, self.weight, self.bias)


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous()
        (rounded, scale), (weight_rounded, weight_scale) = _rounded(x), _rounded(weight)
        products = row_products(rounded, weight_rounded.t())
        out = x.new_empty(products.shape)
        parallel(_rescale, len(x), *map(raw, (products, scale, weight_scale, bias, out)))
        ctx.save_for_backward(x, weight_rounded, weight_scale)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight_rounded, weight_scale = ctx.saved_tensors
        grad = gradients[0].contiguous()
        rounded, scale = grad.new_empty(grad.shape, dtype=torch.int8), torch.empty(len(grad))
        sums = torch.zeros(most_parts(), grad.shape[1])
        arrays = map(raw, (grad, weight_scale, rounded, scale, sums))
        parallel(_round_at_random, len(grad), *arrays, random_seed())
        products = row_products(rounded, weight_rounded)
        grad_x = grad.new_empty(products.shape)
        parallel(_rescale_rows, len(grad), *map(raw, (products, scale, grad_x)))
        return grad_x, column_products(grad, x), sums.sum(0).to(grad.dtype)


def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """bf16 `x [rows, columns]` as int8 and a scale for each row."""
    rounded, scale = x.new_empty(x.shape, dtype=torch.int8), torch.empty(len(x))
    parallel(_round, len(x), *map(raw, (x, rounded, scale)))
    return rounded, scale


@kernel
def _round(part, lo, hi, x, rounded, scale):
    """Rows of x to the nearest multiples of a scale of their own, the largest entry TOP."""
    row = np.empty(x.shape[1], f4)
    for r in range(lo, hi):
        top = rank(SMALLEST)
        for j in range(len(row)):
            row[j] = load(x[r, j])
            top = max(top, rank(abs(row[j])))
        largest = of_rank(top)
        factor = f4(TOP) / largest
        for j in range(len(row)):
            rounded[r, j] = np.int8(np.floor(row[j] * factor + HALF))
        scale[r] = largest / f4(TOP)


@kernel
def _round_at_random(part, lo, hi, grad, column_scale, rounded, scale, sums, seed):
    """Rows of grad * column_scale, rounded up or down with the chance that keeps their mean.

    sums: `[parts, columns]`, those of grad over the rows.
    """
    row, total = np.empty(grad.shape[1], f4), sums[part]
    for r in range(lo, hi):
        top, first = rank(SMALLEST), u4(r * len(row))
        for j in range(len(row)):
            g = load(grad[r, j])
            total[j] += g
            row[j] = g * column_scale[j]
            top = max(top, rank(abs(row[j])))
        largest = of_rank(top)
        factor = f4(TOP) / largest
        for j in range(len(row)):
            # 24 random bits: a share of [0, 1).
            share = f4(np.int32(hashed(seed, u4(first + u4(j))) >> u4(8))) * f4(2**-24)
            rounded[r, j] = np.int8(np.floor(row[j] * factor + share))
        scale[r] = largest / f4(TOP)


@kernel
def _rescale(part, lo, hi, products, row_scale, column_scale, bias, out):
    """out = products of int8 rows, with the scales of both sides, plus bias."""
    for r in range(lo, hi):
        factor = row_scale[r]
        for j in range(out.shape[1]):
            out[r, j] = store(out, f4(products[r, j]) * factor * column_scale[j] + load(bias[j]))


@kernel
def _rescale_rows(part, lo, hi, products, row_scale, out):
    """out = products of int8 rows with the scale of their row."""
    for r in range(lo, hi):
        factor = row_scale[r]
        for j in range(out.shape[1]):
            out[r, j] = store(out, f4(products[r, j]) * factor)
