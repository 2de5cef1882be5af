"""Products of a batch's rows with the weights of a linear layer, in training on the CPU.

oneDNN, which multiplies in bf16 and int8 for PyTorch, compiles each product for its shape. It keeps what it
has compiled, but nearly every batch has another number of tokens, and in a tiny model compiling takes several
times as long as multiplying. So rows are multiplied as far as a multiple of MANY, and the rest filled up with
rows of zeros to a multiple of ROWS: there are few such shapes, and the results are the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor
from torch.autograd import Function

from tinylm.ops.autograd import has_kernels

MANY, ROWS = 512, 64


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: `x [rows, in]` and `weight [out, in]` to `[rows, out]`."""
    if len(x) > ROWS and x.dtype == torch.bfloat16 and has_kernels(x) and torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


def row_products(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x [rows, in]` times `matrix [in, out]`, plus `bias [out]`; of int8 in int32, without a bias."""
    out = torch.empty(len(x), matrix.shape[1], dtype=torch.int32 if x.dtype == torch.int8 else x.dtype)
    # No public operation of PyTorch multiplies int8 matrices on the CPU: hence `torch._int_mm`.
    multiply = torch._int_mm if x.dtype == torch.int8 else torch.mm
    if bias is not None:
        multiply = partial(torch.addmm, bias)
    whole = len(x) // MANY * MANY
    if whole:
        multiply(x[:whole], matrix, out=out[:whole])
    if whole < len(x):
        out[whole:] = multiply(_filled(x[whole:]), matrix)[: len(x) - whole]
    return out


def column_products(x: Tensor, y: Tensor) -> Tensor:
    """The transpose of `x [rows, a]` times `y [rows, b]`."""
    whole = len(x) // MANY * MANY
    out = x[:whole].t() @ y[:whole]
    if whole < len(x):
        out.addmm_(_filled(x[whole:]).t(), _filled(y[whole:]))
    return out


def _filled(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, -len(x) % ROWS))


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return row_products(x, weight.t(), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        grad = gradients[0].contiguous()
        grad_bias = grad.sum(0) if ctx.needs_input_grad[2] else None
        return row_products(grad, weight), column_products(grad, x), grad_bias
