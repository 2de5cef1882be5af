# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
# (numba compiles functions that carry no types)
"""Linear layers that multiply in int8 while they train.

Processors multiply int8 matrices at twice the rate of bf16. Two of the three products of a
linear layer are taken in int8, output and gradient of the input, as in SwitchBack
(Wortsman et al. 2023); the third, the gradient of the weights, sums over all tokens of a
batch and stays in bf16. Each row of both factors has a scale of its own, that of its largest
entry, so that an output is off by about one percent, far less than what dropout does to it.
Gradients, whose entries differ in size much more, are rounded up or down at random, right
on average: otherwise the many small ones would all be lost.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn
from torch.autograd import Function

from tinylm.model.functions import gelu, has_kernels
from tinylm.model.kernels import (
    HALF,
    dropout_parameters,
    f4,
    gelu_tables,
    hashed,
    inline,
    kernel,
    load,
    parallel,
    raw,
    store,
    u4,
)

# With fewer rows, rounding the weights takes longer than the faster product saves.
ROWS = 256
TOP = f4(127)
SMALLEST = f4(1e-30)  # stands in for the largest entry of a row of zeros


@lru_cache
def int8_pays() -> bool:
    """Whether this processor multiplies int8 matrices in hardware."""
    return bool(torch.cpu._is_vnni_supported())


def pays(x: Tensor) -> bool:
    """Whether products with the rows `x` are taken in int8: in training, on many rows, in bf16 on a CPU."""
    return has_kernels(x) and len(x) >= ROWS and torch.is_grad_enabled() and int8_pays()


class Linear(nn.Linear):
    """`nn.Linear`, in int8 where that pays."""

    def forward(self, x: Tensor) -> Tensor:
        """`[rows, in]` to `[rows, out]`."""
        return _Linear.apply(x, self.weight, self.bias) if pays(x) else F.linear(x, self.weight, self.bias)


def feed_forward(x: Tensor, expand: Linear, contract: Linear) -> Tensor:
    """contract(GELU(expand(x))), `[rows, width]`; in int8 with fewer passes over the wide rows between."""
    if pays(x):
        return _FeedForward.apply(x, expand.weight, expand.bias, contract.weight, contract.bias)
    out: Tensor = contract(gelu(expand(x)))
    return out


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous()
        factor = _rounded(weight)
        out = _product(_rounded(x), factor, bias)
        ctx.save_for_backward(x, *factor)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, *factor = ctx.saved_tensors
        grad = gradients[0].contiguous()
        rounded, grad_bias = _rounded_at_random(grad, factor[1])
        return _product_back(rounded, factor[0]), grad.t() @ x, grad_bias


class _FeedForward(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, weight_out: Tensor, bias_out: Tensor
    ) -> Tensor:
        rounded, scale = _rounded(x)
        factor, factor_out = _rounded(weight), _rounded(weight_out)
        products = _multiply(rounded, factor[0].t())
        inner, active = x.new_empty(products.shape), x.new_empty(products.shape)
        active_rounded = x.new_empty(products.shape, dtype=torch.int8), torch.empty(len(x))
        tensors = (products, scale, factor[1], bias, inner, active, *active_rounded)
        parallel(_rescale_gelu_round, len(x), *map(raw, tensors), gelu_tables()[0])
        ctx.save_for_backward(x, inner, active, *factor, *factor_out)
        return _product(active_rounded, factor_out, bias_out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, inner, active, weight, weight_scale, weight_out, weight_out_scale = ctx.saved_tensors
        grad = gradients[0].contiguous()
        (rounded, scale), grad_bias_out = _rounded_at_random(grad, weight_out_scale)
        products = _multiply(rounded, weight_out)
        grad_inner, sums = torch.empty_like(inner), torch.zeros(torch.get_num_threads(), inner.shape[1])
        inner_rounded = inner.new_empty(inner.shape, dtype=torch.int8), torch.empty(len(inner))
        tensors = (products, scale, inner, weight_scale, grad_inner, *inner_rounded, sums)
        parallel(_rescale_slope_round, len(inner), *map(raw, tensors), gelu_tables()[1], _seed())
        grad_bias = sums.sum(0).to(grad.dtype)
        grad_x = _product_back(inner_rounded, weight)
        return grad_x, grad_inner.t() @ x, grad_bias, grad.t() @ active, grad_bias_out


def _multiply(rows: Tensor, columns: Tensor) -> Tensor:
    """The product of two int8 matrices in int32."""
    # No public operation of PyTorch multiplies int8 matrices on the CPU.
    return torch._int_mm(rows, columns)


def _product(rounded: tuple[Tensor, Tensor], factor: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
    """x @ weight.T + bias of rounded x and weight, in bf16."""
    products = _multiply(rounded[0], factor[0].t())
    out = torch.empty(products.shape, dtype=bias.dtype)
    parallel(_rescale, len(out), *map(raw, (products, rounded[1], factor[1], bias, out)))
    return out


def _product_back(rounded: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
    """grad @ weight, in bf16; the scales of the weight's rows are in `rounded` already."""
    products = _multiply(rounded[0], weight)
    out = torch.empty(products.shape, dtype=torch.bfloat16)
    parallel(_rescale_rows, len(out), *map(raw, (products, rounded[1], out)))
    return out


def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """bf16 `x [rows, columns]` as int8 and a scale for each row."""
    rounded, scale = x.new_empty(x.shape, dtype=torch.int8), torch.empty(len(x))
    parallel(_round, len(x), *map(raw, (x, rounded, scale)))
    return rounded, scale


def _rounded_at_random(grad: Tensor, column_scale: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """bf16 `grad * column_scale` as int8 and a scale for each row, and the sum of all rows of `grad`."""
    rounded, scale = grad.new_empty(grad.shape, dtype=torch.int8), torch.empty(len(grad))
    sums = torch.zeros(torch.get_num_threads(), grad.shape[1])
    parallel(_round_at_random, len(grad), *map(raw, (grad, column_scale, rounded, scale, sums)), _seed())
    return (rounded, scale), sums.sum(0).to(grad.dtype)


def _seed() -> np.uint32:
    return dropout_parameters(0.5)[0]


@inline
def _nearest(row, rounded):
    """`rounded`: the row in multiples of the scale that is returned; its largest entry becomes 127."""
    largest = SMALLEST
    for j in range(len(row)):
        largest = max(largest, abs(row[j]))
    factor = TOP / largest
    for j in range(len(row)):
        rounded[j] = np.int8(math.floor(row[j] * factor + HALF))
    return largest / TOP


@inline
def _up_or_down(row, rounded, seed, first):
    """The same with each entry rounded up or down, with the chance that keeps its mean."""
    largest = SMALLEST
    for j in range(len(row)):
        largest = max(largest, abs(row[j]))
    factor = TOP / largest
    for j in range(len(row)):
        # 24 random bits: a share of [0, 1).
        share = f4(np.int32(hashed(seed, u4(first + u4(j))) >> u4(8))) * f4(2**-24)
        rounded[j] = np.int8(math.floor(row[j] * factor + share))
    return largest / TOP


@kernel
def _round(part, lo, hi, x, rounded, scale):
    """Rows of x to the nearest multiples of a scale of their own."""
    row = np.empty(x.shape[1], f4)
    for r in range(lo, hi):
        for j in range(len(row)):
            row[j] = load(x[r, j])
        scale[r] = _nearest(row, rounded[r])


@kernel
def _round_at_random(part, lo, hi, grad, column_scale, rounded, scale, sums, seed):
    """Rows of grad * column_scale to multiples of a scale of their own; sums of grad over the rows."""
    row, total = np.empty(grad.shape[1], f4), sums[part]
    for r in range(lo, hi):
        for j in range(len(row)):
            g = load(grad[r, j])
            total[j] += g
            row[j] = g * column_scale[j]
        scale[r] = _up_or_down(row, rounded[r], seed, u4(r * len(row)))


@kernel
def _rescale(part, lo, hi, products, row_scale, column_scale, bias, out):
    """out = products of int8 rows, with the scales of both sides, plus bias."""
    for r in range(lo, hi):
        factor = row_scale[r]
        for j in range(out.shape[1]):
            out[r, j] = store(f4(products[r, j]) * factor * column_scale[j] + load(bias[j]))


@kernel
def _rescale_rows(part, lo, hi, products, row_scale, out):
    """out = products of int8 rows with the scale of their row."""
    for r in range(lo, hi):
        factor = row_scale[r]
        for j in range(out.shape[1]):
            out[r, j] = store(f4(products[r, j]) * factor)


@kernel
def _rescale_gelu_round(
    part, lo, hi, products, row_scale, column_scale, bias, inner, active, rounded, scale, values
):
    """`_rescale` into `inner`, its GELU, and that rounded."""
    row = np.empty(inner.shape[1], f4)
    for r in range(lo, hi):
        factor = row_scale[r]
        for j in range(len(row)):
            inner[r, j] = store(f4(products[r, j]) * factor * column_scale[j] + load(bias[j]))
        for j in range(len(row)):
            active[r, j] = values[inner[r, j]]
        for j in range(len(row)):
            row[j] = load(active[r, j])
        scale[r] = _nearest(row, rounded[r])


@kernel
def _rescale_slope_round(
    part, lo, hi, products, row_scale, inner, column_scale, grad, rounded, scale, sums, slopes, seed
):
    """`grad`: gradient of `inner` from that of its GELU; that rounded as in `_round_at_random`."""
    row, total = np.empty(inner.shape[1], f4), sums[part]
    for r in range(lo, hi):
        factor = row_scale[r]
        for j in range(len(row)):
            row[j] = slopes[inner[r, j]]
        for j in range(len(row)):
            g = f4(products[r, j]) * factor * row[j]
            grad[r, j] = store(g)
            total[j] += g
            row[j] = g * column_scale[j]
        scale[r] = _up_or_down(row, rounded[r], seed, u4(r * len(row)))
