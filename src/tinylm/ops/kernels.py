# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated, misc"
# (numba compiles functions that carry no types)
"""Element-wise kernels in bf16 and fp32 for the CPU, compiled by numba, so without a C compiler.

PyTorch computes the matrix products, which take most of the time. The steps between them must not
take more. PyTorch's element-wise operations would: each of them reads and writes its operands
again, dropout draws its mask on one thread and stores it, and new memory is expensive.

Here several element-wise steps are one pass over memory, computed in fp32. A dropout mask is a
hash of (seed, index), computed again in the backward pass instead of stored.

A kernel works on rows `lo` to `hi`, as part number `part` of a parallel run (see `ops/threads.py`).
Its arrays of type uint16 hold the bits of bf16 numbers. The parameters `seed, cut, scale` are those
of a dropout, see `dropout_parameters`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tinylm.ops import HEAD_WIDTH
from tinylm.ops.scalar import (
    LOWEST,
    ONE,
    ZERO,
    exp,
    f4,
    gelu_slope,
    kept,
    kernel,
    load,
    normal,
    of_rank,
    rank,
    store,
    u2,
    u4,
)


@kernel
def dropout(part, lo, hi, x, y, seed, cut, scale):
    """y = dropout(x), flat; its own backward pass."""
    x, y = x[lo:hi], y[lo:hi]  # counted from 0: numba takes another index for one that may be negative
    for i in range(len(x)):
        y[i] = store(y, load(x[i]) * kept(seed, u4(u4(lo) + u4(i)), cut, scale))


@kernel
def gelu(part, lo, hi, x, y):
    """y = GELU(x), flat."""
    x, y = x[lo:hi], y[lo:hi]
    for i in range(len(x)):
        number = load(x[i])
        y[i] = store(y, number * normal(number))


@kernel
def gelu_backward(part, lo, hi, grad, x, grad_x):
    """Gradient of `gelu`, flat."""
    grad, x, grad_x = grad[lo:hi], x[lo:hi], grad_x[lo:hi]
    for i in range(len(x)):
        grad_x[i] = store(grad_x, load(grad[i]) * gelu_slope(load(x[i])))


@kernel
def dropout_add_norm(part, lo, hi, h, residual, weight, bias, total, y, mean, inverse, seed, cut, scale, eps):
    """total = dropout(h) + residual and y = LayerNorm(total), row by row."""
    width = h.shape[1]
    row = np.empty(width, f4)
    share = f4(1.0 / width)
    for r in range(lo, hi):
        first = u4(r * width)
        s = ZERO
        for j in range(width):
            number = store(
                total, load(h[r, j]) * kept(seed, u4(first + u4(j)), cut, scale) + load(residual[r, j])
            )
            total[r, j] = number
            row[j] = load(number)
            s += row[j]
        mu = s * share
        q = ZERO
        for j in range(width):
            d = row[j] - mu
            q += d * d
        inv = ONE / math.sqrt(q * share + eps)
        mean[r] = mu
        inverse[r] = inv
        for j in range(width):
            y[r, j] = store(y, (row[j] - mu) * inv * load(weight[j]) + load(bias[j]))


@kernel
def dropout_add_norm_backward(
    part, lo, hi, grad, total, weight, mean, inverse, grad_h, grad_residual, grad_affine, seed, cut, scale
):
    """Gradients of `dropout_add_norm`; `grad_affine [parts, 2, width]` sums those of weight and bias."""
    width = grad.shape[1]
    normed = np.empty(width, f4)
    scaled = np.empty(width, f4)
    share = f4(1.0 / width)
    grad_weight = grad_affine[part, 0]
    grad_bias = grad_affine[part, 1]
    for r in range(lo, hi):
        first = u4(r * width)
        mu, inv = mean[r], inverse[r]
        a = ZERO
        b = ZERO
        for j in range(width):
            g = load(grad[r, j])
            x = (load(total[r, j]) - mu) * inv
            t = g * load(weight[j])
            normed[j] = x
            scaled[j] = t
            a += t
            b += t * x
            grad_weight[j] += g * x
            grad_bias[j] += g
        a *= share
        b *= share
        for j in range(width):
            d = inv * (scaled[j] - a - normed[j] * b)
            grad_residual[r, j] = store(grad_residual, d)
            grad_h[r, j] = store(grad_h, d * kept(seed, u4(first + u4(j)), cut, scale))


BLOCK = 1024  # rows that are summed in fp32 before they go into a sum in fp64


@kernel
def channel_sums(part, lo, hi, x, sums):
    """Sums and sums of squares of each column of `x [rows, channels]`: `sums [parts, 2, channels]`, fp64."""
    channels = x.shape[1]
    total, squares = np.empty(channels, f4), np.empty(channels, f4)
    for first in range(lo, hi, BLOCK):
        total[:] = ZERO
        squares[:] = ZERO
        for r in range(first, min(first + BLOCK, hi)):
            for c in range(channels):
                v = load(x[r, c])
                total[c] += v
                squares[c] += v * v
        for c in range(channels):
            sums[part, 0, c] += total[c]
            sums[part, 1, c] += squares[c]


@kernel
def scale_shift_gelu(part, lo, hi, x, scale, shift, y):
    """y = GELU(x * scale + shift) of `x [rows, channels]`."""
    for r in range(lo, hi):
        for c in range(x.shape[1]):
            number = load(x[r, c]) * scale[c] + shift[c]
            y[r, c] = store(y, number * normal(number))


@kernel
def scale_shift_gelu_backward(part, lo, hi, grad, x, scale, shift, mean, inverse, grad_normed, sums):
    """Gradient of x * scale + shift; `sums [parts, 2, channels]`: of it and of it times the normed x."""
    channels = x.shape[1]
    total, products = np.empty(channels, f4), np.empty(channels, f4)
    for first in range(lo, hi, BLOCK):
        total[:] = ZERO
        products[:] = ZERO
        for r in range(first, min(first + BLOCK, hi)):
            for c in range(channels):
                number = load(x[r, c])
                d = load(grad[r, c]) * gelu_slope(number * scale[c] + shift[c])
                grad_normed[r, c] = store(grad_normed, d)
                total[c] += d
                products[c] += d * (number - mean[c]) * inverse[c]
        for c in range(channels):
            sums[part, 0, c] += total[c]
            sums[part, 1, c] += products[c]


@kernel
def batch_norm_backward(part, lo, hi, grad, x, scale, mean, inverse, total, products):
    """BatchNorm's gradient, in place of that of its output; `total`, `products`: means over all rows."""
    for r in range(lo, hi):
        for c in range(x.shape[1]):
            normed = (load(x[r, c]) - mean[c]) * inverse[c]
            grad[r, c] = store(grad, scale[c] * (load(grad[r, c]) - total[c] - normed * products[c]))


@kernel
def softmax(part, lo, hi, scores, weights, dropped, lengths, per_text, factor, seed, cut, scale):
    """Attention weights of rows of scores, before and after dropout.

    Row r belongs to text r // per_text and sees its first lengths[...] keys; the
    weights of the others, padding, are 0. `weights` may be `scores` itself.
    """
    keys = scores.shape[1]
    row = np.empty(keys, f4)
    for r in range(lo, hi):
        n = lengths[r // per_text]
        first = u4(r * keys)
        highest = LOWEST
        for j in range(n):
            row[j] = load(scores[r, j]) * factor
            highest = max(highest, rank(row[j]))
        top = of_rank(highest)
        s = ZERO
        for j in range(n):
            e = exp(row[j] - top)
            row[j] = e
            s += e
        s = ONE / s
        for j in range(n):
            w = row[j] * s
            weights[r, j] = store(weights, w)
            dropped[r, j] = store(dropped, w * kept(seed, u4(first + u4(j)), cut, scale))
        for j in range(n, keys):
            weights[r, j] = u2(0)
            dropped[r, j] = u2(0)


@kernel
def softmax_backward(part, lo, hi, grad, weights, lengths, per_text, factor, seed, cut, scale):
    """Gradient of `softmax`: that of the dropped-out weights becomes that of the scores, in place."""
    keys = grad.shape[1]
    row = np.empty(keys, f4)
    for r in range(lo, hi):
        n = lengths[r // per_text]
        first = u4(r * keys)
        s = ZERO
        for j in range(n):
            g = load(grad[r, j]) * kept(seed, u4(first + u4(j)), cut, scale)
            row[j] = g
            s += g * load(weights[r, j])
        for j in range(n):
            grad[r, j] = store(grad, (row[j] - s) * load(weights[r, j]) * factor)
        for j in range(n, keys):
            grad[r, j] = u2(0)


@kernel
def cross_entropy(part, lo, hi, logits, bias, targets, loss, sums, factor):
    """Loss of each row of logits + bias; these become (softmax - one-hot) * factor, their own gradient.

    sums: `[parts, vocabulary]`, the gradient's sum over the rows.
    """
    vocabulary = logits.shape[1]
    row, total = np.empty(vocabulary, f4), sums[part]
    for r in range(lo, hi):
        highest = LOWEST
        for j in range(vocabulary):
            row[j] = load(logits[r, j]) + load(bias[j])
            highest = max(highest, rank(row[j]))
        top = of_rank(highest)
        k = targets[r]
        x = row[k] - top
        s = ZERO
        for j in range(vocabulary):
            e = exp(row[j] - top)
            row[j] = e
            s += e
        loss[r] = math.log(s) - x
        f = factor / s
        row[k] -= s
        for j in range(vocabulary):
            g = row[j] * f
            logits[r, j] = store(logits, g)
            total[j] += g


@kernel
def pad(part, lo, hi, packed, column, starts, lengths, longest, first, padded, heads):
    """Columns of packed rows to `padded [rows, HEAD_WIDTH]`, zeros behind each text.

    Text t has a matrix of longest[t] rows for each head, the first one from row first[t] on.
    """
    width = heads * HEAD_WIDTH
    for text in range(lo, hi):
        rows = packed[starts[text] : starts[text] + lengths[text], column : column + width]
        matrices = padded[first[text] : first[text] + heads * longest[text]]
        matrices = matrices.reshape(heads, longest[text], HEAD_WIDTH)
        for t in range(len(rows)):
            for head in range(heads):
                for j in range(HEAD_WIDTH):
                    matrices[head, t, j] = rows[t, head * HEAD_WIDTH + j]
        matrices[:, len(rows) :] = u2(0)


@kernel
def unpad(part, lo, hi, packed, column, starts, lengths, longest, first, padded, heads):
    """The inverse of `pad`."""
    width = heads * HEAD_WIDTH
    for text in range(lo, hi):
        rows = packed[starts[text] : starts[text] + lengths[text], column : column + width]
        matrices = padded[first[text] : first[text] + heads * longest[text]]
        matrices = matrices.reshape(heads, longest[text], HEAD_WIDTH)
        for t in range(len(rows)):
            for head in range(heads):
                for j in range(HEAD_WIDTH):
                    rows[t, head * HEAD_WIDTH + j] = matrices[head, t, j]


@kernel
def sum_rows(part, lo, hi, rows, order, bounds, out):
    """out[r] = sum over i in bounds[r] .. bounds[r + 1] of rows[order[i]], in fp32."""
    width = rows.shape[1]
    for r in range(lo, hi):
        for j in range(width):
            out[r, j] = ZERO
        for i in range(bounds[r], bounds[r + 1]):
            k = order[i]
            for j in range(width):
                out[r, j] += load(rows[k, j])


def raw(tensor: Tensor) -> np.ndarray:
    """A tensor's memory as a numpy array, bf16 as uint16."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def random_seed() -> np.uint32:
    """A seed from PyTorch's generator."""
    return u4(int(torch.randint(0, 2**32, (), dtype=torch.int64)))


def dropout_parameters(probability: float) -> tuple[np.uint32, np.uint32, np.float32]:
    """`seed, cut, scale` of a dropout."""
    if probability <= 0:
        return u4(0), u4(0), f4(1)
    return random_seed(), u4(int(probability * 2**32)), f4(1 / (1 - probability))
