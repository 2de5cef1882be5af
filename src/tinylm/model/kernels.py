# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated, misc"
# (numba compiles functions that carry no types)
"""Element-wise kernels in bf16 and fp32 for the CPU, compiled by numba, so without a C compiler.

Matrix products are PyTorch's, and they take most of the time; what is between them must
not cost more. PyTorch's element-wise operations
would: each reads and writes its operands once more, dropout draws its mask on one
thread and keeps it, and fresh memory is expensive. Here each run of element-wise
steps is one pass over memory, computed in fp32, and a dropout mask is a hash of
(seed, index), made again in the backward pass instead of stored.

A kernel works on rows `lo` to `hi` as number `part` of the parts of a parallel run (see
`parallel`). Its arrays of type uint16 hold the bits of bf16 numbers. Parameters
named `seed, cut, scale` are those of a dropout, see `dropout_parameters`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from tinylm.model.config import HEAD_WIDTH

Item = TypeVar("Item")
Result = TypeVar("Result")

f4, u4, u2 = np.float32, np.uint32, np.uint16
OPTIONS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    # No "nnan" or "ninf": a diverging run must show.
    "fastmath": {"nsz", "arcp", "contract", "afn", "reassoc"},
}
inline = njit(inline="always", **OPTIONS)
kernel = njit(nogil=True, **OPTIONS)

ONE, ZERO, HALF = f4(1), f4(0), f4(0.5)


@intrinsic
def _bits_to_float(typing: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@intrinsic
def load(typing: Any, number: Any) -> Any:
    """An entry of an array as float32; bf16 is the upper half of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if number == types.float32:
            return arguments[0]
        bits = context.get_value_type(types.uint32)
        wide = builder.shl(builder.zext(arguments[0], bits), bits(16))
        return builder.bitcast(wide, context.get_value_type(types.float32))

    return types.float32(number), generate


@intrinsic
def store(typing: Any, array: Any, number: Any) -> Any:
    """float32 as an entry of `array`; to bf16 it is rounded to nearest even."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if array.dtype == types.float32:
            return arguments[1]
        wide, half = (context.get_value_type(kind) for kind in (types.uint32, types.uint16))
        bits = builder.bitcast(arguments[1], wide)
        odd = builder.and_(builder.lshr(bits, wide(16)), wide(1))
        rounded = builder.add(bits, builder.add(odd, wide(0x7FFF)))
        return builder.trunc(builder.lshr(rounded, wide(16)), half)

    return array.dtype(array, types.float32), generate


@intrinsic
def _float_to_bits(typing: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@inline
def rank(x):
    """int32 that rises with the float32 x.

    LLVM vectorises the maximum of integers. That of floats it does not, unless told that there is no NaN.
    """
    bits = _float_to_bits(x)
    return np.int32(bits ^ (np.int32(bits >> 31) & np.int32(0x7FFFFFFF)))


@inline
def of_rank(number):
    """The float32 that `rank` made a number of."""
    return _bits_to_float(u4(np.int32(number ^ (np.int32(number >> 31) & np.int32(0x7FFFFFFF)))))


LOWEST = np.int32(-(2**31))  # below every rank


@inline
def hashed(seed, index):
    """32 random bits for element `index`: the finalizer of MurmurHash3 on (index, seed)."""
    h = u4(u4(index) * u4(0x9E3779B1)) ^ u4(seed)
    h = u4(u4(h ^ u4(h >> u4(16))) * u4(0x85EBCA6B))
    h = u4(u4(h ^ u4(h >> u4(13))) * u4(0xC2B2AE35))
    return u4(h ^ u4(h >> u4(16)))


@inline
def kept(seed, index, cut, scale):
    """What dropout multiplies element `index` by: `scale`, or 0 with probability cut / 2^32."""
    return scale if hashed(seed, index) >= cut else ZERO


LOG2E = f4(1.4426950408889634)
# 2^r on [-1/2, 1/2]: the Taylor series of exp(r ln 2).
EXP2 = tuple(f4(math.log(2) ** n / math.factorial(n)) for n in range(1, 7))
E1, E2, E3, E4, E5, E6 = EXP2


@inline
def exp(x):
    """exp in float32, relative error about 1e-7; x is clamped to [-87, 87].

    Written out because LLVM vectorises it, which it cannot do with a call. Nor with `math.floor`,
    which gives int64; `np.floor` stays in float32.
    """
    y = min(max(x, f4(-87)), f4(87)) * LOG2E
    n = np.floor(y + HALF)
    r = y - n
    series = ONE + r * (E1 + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))))
    return series * _bits_to_float(u4(np.int32(np.int32(n) + np.int32(127))) << u4(23))


# Abramowitz and Stegun 7.1.26: erf with an absolute error below 1.5e-7.
A0, A1, A2, A3, A4, A5 = (
    f4(a) for a in (0.3275911, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)
SQRT_HALF = f4(math.sqrt(0.5))


@inline
def normal(x):
    """Distribution function of the normal distribution at x, so that GELU is x * normal(x)."""
    a = abs(x) * SQRT_HALF
    t = ONE / (ONE + A0 * a)
    tail = HALF * t * (A1 + t * (A2 + t * (A3 + t * (A4 + t * A5)))) * exp(-a * a)
    return ONE - tail if x > ZERO else tail


DENSITY = f4(1 / math.sqrt(2 * math.pi))


@inline
def gelu_slope(x):
    """Derivative of GELU at x."""
    a = abs(x) * SQRT_HALF  # as in `normal`: the compiler takes the exponential once
    return normal(x) + x * DENSITY * exp(-a * a)


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
    """The way back of `pad`."""
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


@inline
def adamw_step(w, m, v, g, decay, rate, correction, b1, b2, eps):
    """First and second moment and weight after one AdamW step with gradient g."""
    m = m * b1 + g * (ONE - b1)
    v = v * b2 + g * g * (ONE - b2)
    return m, v, w * decay - rate * m / (math.sqrt(v) * correction + eps)


@kernel
def adamw(
    part, lo, hi, working, master, first, second, grad, row_of, rows, decay, rate, correction, b1, b2, eps
):
    """One AdamW step in one pass over memory.

    working: bf16 weights `[n, width]`, or None; master, first, second: fp32 weights and moments.
    grad: gradient; rows: fp32 gradients of some rows on top of it, row_of[r] the one
    of row r or -1, or no entry where there are none.
    """
    width = master.shape[1]
    has_rows = row_of.shape[0] > 0
    nothing = np.zeros(width, f4)
    for r in range(lo, hi):
        k = row_of[r] if has_rows else -1
        extra = rows[k] if k >= 0 else nothing
        for j in range(width):
            g = extra[j] + load(grad[r, j])
            m, v, w = adamw_step(
                master[r, j], first[r, j], second[r, j], g, decay, rate, correction, b1, b2, eps
            )
            first[r, j] = m
            second[r, j] = v
            master[r, j] = w
            if working is not None:
                working[r, j] = store(working, w)


@kernel
def adamw_rows(part, lo, hi, rows, working, master, first, second, done, ever, numbers, grad, b1, b2, eps):
    """AdamW steps done[r] to len(numbers) of the rows r in `rows`, as `adamw` would take them.

    grad: fp32 gradients `[rows, width]` in the last of these steps, or no row where there is
    none; before it there is none either. numbers: decay, rate and correction of each step.
    Where `ever` is False, both moments are zero.
    """
    width, steps = master.shape[1], len(numbers)
    last = steps - 1 if len(grad) else steps  # the step that has a gradient
    nothing = np.zeros(width, f4)
    for i in range(lo, hi):
        r = rows[i]
        w, m, v = master[r], first[r], second[r]
        for step in range(done[r], steps):
            decay, rate, correction = numbers[step]
            g = grad[i] if step == last else nothing
            if ever[r]:
                for j in range(width):
                    m[j], v[j], w[j] = adamw_step(
                        w[j], m[j], v[j], g[j], decay, rate, correction, b1, b2, eps
                    )
            else:
                for j in range(width):
                    w[j] *= decay
        if working is not None:
            for j in range(width):
                working[r, j] = store(working, w[j])


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def most_parts() -> int:
    """Parts into which `parallel` cuts rows, at most."""
    threads = torch.get_num_threads()
    return 4 * threads if threads > 1 else 1


def parallel(function: Any, rows: int, *arguments: Any, together: int = 1) -> None:
    """Run a kernel over `range(rows)` on PyTorch's threads.

    Each thread takes the next part when it is done with one, since parts take unequal times and
    waking a thread takes as long as some of them. Which rows form a part does not depend on that.

    Args:
        function: the kernel.
        rows: how many there are.
        arguments: the kernel's, after `part, lo, hi`.
        together: rows that gain by being in one part.
    """
    count = max(1, min(most_parts(), -(-rows // together)))
    bounds = [rows * part // count for part in range(count + 1)]
    left = iter(range(count))

    def work() -> None:
        for part in left:
            function(part, bounds[part], bounds[part + 1], *arguments)

    threads = torch.get_num_threads()
    others = [_pool(threads - 1).submit(work) for _ in range(1, min(threads, count))]
    work()
    for other in others:
        if not other.cancel():
            other.result()


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function` of each item, shared out among PyTorch's threads."""
    threads = torch.get_num_threads()

    def share(part: int) -> list[Result]:
        return [function(item) for item in items[part::threads]]

    others = [_pool(threads - 1).submit(share, part) for part in range(1, min(threads, len(items)))]
    shares = [share(0), *(other.result() for other in others)]
    return [shares[number % threads][number // threads] for number in range(len(items))]


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
