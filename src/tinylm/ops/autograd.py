"""The operations of a BERT-n: on the CPU through our kernels, elsewhere through PyTorch.

An fp32 model that predicts without gradients uses PyTorch on the CPU too. Both ways compute the
same; the tests compare them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn
from torch.autograd import Function

from tinylm.ops import HEAD_WIDTH, kernels
from tinylm.ops.fixed import StaticGroup
from tinylm.ops.kernels import dropout_parameters, raw
from tinylm.ops.packed import Group, Span
from tinylm.ops.threads import most_parts, parallel

Groups = Sequence[Group | StaticGroup]
IGNORED = -100  # target of a position that carries no loss


def has_kernels(x: Tensor) -> bool:
    """Whether our kernels work on `x`."""
    if x.device.type != "cpu":
        return False
    return x.dtype == torch.bfloat16 or (x.dtype == torch.float32 and torch.is_grad_enabled())


def dropout(x: Tensor, probability: float) -> Tensor:
    """Dropout; a probability of 0 gives `x` itself."""
    if probability == 0:
        return x
    return _Dropout.apply(x, probability) if has_kernels(x) else F.dropout(x, probability)


def dropout_add_norm(x: Tensor, residual: Tensor, norm: nn.LayerNorm, probability: float) -> Tensor:
    """LayerNorm(dropout(x) + residual), the end of both halves of a block; all `[rows, width]`."""
    if has_kernels(x):
        return _DropoutAddNorm.apply(x, residual, norm.weight, norm.bias, probability, norm.eps)
    return norm(dropout(x, probability) + residual)


def gelu(x: Tensor) -> Tensor:
    """GELU of every entry."""
    return _Gelu.apply(x) if has_kernels(x) else F.gelu(x)


def norm_gelu(image: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """GELU(BatchNorm(image)), `[texts, channels, rows, columns]`; training updates `norm`."""
    if not (has_kernels(image) and norm.training):
        return F.gelu(norm(image))
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    assert norm.num_batches_tracked is not None
    pixels = image.permute(0, 2, 3, 1).contiguous()
    out, mean, variance = _NormGelu.apply(pixels.flatten(0, 2), norm.weight, norm.bias, norm.eps)
    count = pixels[..., 0].numel()
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    # Running variances are unbiased, as PyTorch has them.
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), norm.momentum)
    norm.num_batches_tracked += 1
    return out.view(pixels.shape).permute(0, 3, 1, 2)


def attention(query: Tensor, key_value: Tensor, groups: Groups, heads: int, probability: float) -> Tensor:
    """Multi-head attention, each text by itself, dropout on the attention weights.

    Args:
        query: `[queries, width]`, packed.
        key_value: `[tokens, 2 * width]`, packed: keys, then values.
        groups: where the queries and tokens of each text lie.
        heads: number of heads.
        probability: of dropout.

    Returns:
        The heads' outputs side by side, `[queries, width]`.
    """
    if has_kernels(query):
        return _Attention.apply(query, key_value, groups, heads, probability)
    out = []
    for group in groups:
        q, kv = group.queries.pad(query), group.keys.pad(key_value)
        # [texts, length, width] to [texts, heads, length, size]
        q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, *kv.chunk(2, -1)))
        mask = group.keys.mask(query.device)
        mask = None if mask is None else mask[:, None, None, :]
        context = F.scaled_dot_product_attention(q, k, v, mask, probability)
        out.append(group.queries.unpad(context.transpose(1, 2).flatten(2)))
    return torch.cat(out)


def cross_entropy(logits: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of `logits + bias` where the target is not IGNORED.

    With our kernels, which ignore no target, `logits` are overwritten by their gradient.
    """
    if has_kernels(logits):
        return _CrossEntropy.apply(logits, bias, targets)
    total = F.cross_entropy((logits + bias).float(), targets, ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        ctx.parameters = dropout_parameters(probability)
        return _Dropout._run(x, ctx.parameters)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Dropout._run(gradients[0], ctx.parameters), None

    @staticmethod
    def _run(x: Tensor, parameters: tuple[Any, ...]) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        parallel(kernels.dropout, x.numel(), raw(x).reshape(-1), raw(y).reshape(-1), *parameters)
        return y


class _Gelu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        parallel(kernels.gelu, x.numel(), *(raw(tensor).reshape(-1) for tensor in (x, y)))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        grad, grad_x = gradients[0].contiguous(), torch.empty_like(x)
        parallel(kernels.gelu_backward, x.numel(), *(raw(tensor).reshape(-1) for tensor in (grad, x, grad_x)))
        return grad_x


class _DropoutAddNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, probability: float, eps: float
    ) -> Tensor:
        x, residual = x.contiguous(), residual.contiguous()
        total, y = torch.empty_like(x), torch.empty_like(x)
        mean, inverse = torch.empty(len(x)), torch.empty(len(x))
        ctx.parameters = dropout_parameters(probability)
        arrays = (raw(tensor) for tensor in (x, residual, weight, bias, total, y, mean, inverse))
        parallel(kernels.dropout_add_norm, len(x), *arrays, *ctx.parameters, np.float32(eps))
        ctx.save_for_backward(total, weight, mean, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        total, weight, mean, inverse = ctx.saved_tensors
        grad = gradients[0].contiguous()
        grad_x, grad_residual = torch.empty_like(total), torch.empty_like(total)
        affine = torch.zeros(most_parts(), 2, total.shape[1])
        tensors = (grad, total, weight, mean, inverse, grad_x, grad_residual, affine)
        parallel(kernels.dropout_add_norm_backward, len(total), *map(raw, tensors), *ctx.parameters)
        grad_weight, grad_bias = affine.sum(0).to(weight.dtype)
        return grad_x, grad_residual, grad_weight, grad_bias, None, None


class _NormGelu(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, channels = x.shape
        sums = np.zeros((most_parts(), 2, channels))
        parallel(kernels.channel_sums, rows, raw(x), sums)
        mean, square = sums.sum(0) / rows
        variance = np.maximum(square - mean**2, 0)
        inverse = 1 / np.sqrt(variance + eps)
        scale = weight.detach().double().numpy() * inverse
        shift = bias.detach().double().numpy() - mean * scale
        constants = [array.astype(np.float32) for array in (scale, shift, mean, inverse)]
        y = torch.empty_like(x)
        parallel(kernels.scale_shift_gelu, rows, raw(x), *constants[:2], raw(y))
        ctx.save_for_backward(x)
        ctx.constants, ctx.dtype = constants, weight.dtype
        out = torch.from_numpy(mean), torch.from_numpy(variance)
        ctx.mark_non_differentiable(*out)
        return y, *out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        grad, out = gradients[0].contiguous(), torch.empty_like(x)
        scale, _, mean, inverse = ctx.constants
        sums = np.zeros((most_parts(), 2, x.shape[1]))
        arrays = (raw(grad), raw(x), *ctx.constants, raw(out), sums)
        parallel(kernels.scale_shift_gelu_backward, len(x), *arrays)
        total, products = sums.sum(0)
        means = ((array / len(x)).astype(np.float32) for array in (total, products))
        parallel(kernels.batch_norm_backward, len(x), raw(out), raw(x), scale, mean, inverse, *means)
        grad_weight, grad_bias = (torch.from_numpy(array).to(ctx.dtype) for array in (products, total))
        return out, grad_weight, grad_bias, None


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key_value: Tensor, groups: Sequence[Group], heads: int, probability: float
    ) -> Tensor:
        width = query.shape[1]
        factor = np.float32(HEAD_WIDTH**-0.5)
        # Texts without a query are left out; their keys get no gradient.
        groups = [group for group in groups if group.queries.longest]
        queries = _Padding([group.queries for group in groups], heads)
        keys = _Padding([group.keys for group in groups], heads)
        q, k, v = queries.pad(query, 0), keys.pad(key_value, 0), keys.pad(key_value, width)
        context, kept = queries.new(query), []
        for number, group in enumerate(groups):
            weights = torch.bmm(q[number], k[number].transpose(1, 2))  # scores, which become weights in place
            dropped = torch.empty_like(weights)
            parameters = dropout_parameters(probability)
            per_text = heads * group.queries.longest
            flat, flat_dropped = (raw(tensor.flatten(0, 1)) for tensor in (weights, dropped))
            arrays = (flat, flat, flat_dropped, group.keys.lengths)
            parallel(kernels.softmax, len(flat), *arrays, per_text, factor, *parameters)
            torch.bmm(dropped, v[number], out=context[number])
            kept.append((group.keys.lengths, per_text, parameters, weights, dropped))
        out = torch.empty_like(query)
        queries.unpad(context, out, 0)
        ctx.kept, ctx.padded, ctx.paddings, ctx.factor = kept, (q, k, v), (queries, keys), factor
        ctx.tokens = len(key_value)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        grad = gradients[0].contiguous()
        width = grad.shape[1]
        queries, keys = ctx.paddings
        grad_context = queries.pad(grad, 0)
        grad_q, grad_k, grad_v = queries.new(grad), keys.new(grad), keys.new(grad)
        for number, (q, k, v) in enumerate(zip(*ctx.padded, strict=True)):
            lengths, per_text, parameters, weights, dropped = ctx.kept[number]
            scores = torch.bmm(grad_context[number], v.transpose(1, 2))
            flat, flat_weights = (raw(tensor.flatten(0, 1)) for tensor in (scores, weights))
            arrays = (flat, flat_weights, lengths)
            parallel(kernels.softmax_backward, len(flat), *arrays, per_text, ctx.factor, *parameters)
            torch.bmm(scores, k, out=grad_q[number])
            torch.bmm(scores.transpose(1, 2), q, out=grad_k[number])
            torch.bmm(dropped.transpose(1, 2), grad_context[number], out=grad_v[number])
        grad_query = torch.empty_like(grad)
        grad_key_value = grad.new_zeros(ctx.tokens, 2 * width)
        queries.unpad(grad_q, grad_query, 0)
        keys.unpad(grad_k, grad_key_value, 0)
        keys.unpad(grad_v, grad_key_value, width)
        ctx.kept = ctx.padded = None  # frees the activations before the next block needs memory
        return grad_query, grad_key_value, None, None, None


class _Padding:
    """Pads each group of texts to its longest text, all groups in one pass over memory.

    Args:
        spans: texts of each group.
        heads: of the attention; each has a matrix of its own.
    """

    def __init__(self, spans: Sequence[Span], heads: int) -> None:
        counts = [len(span.lengths) for span in spans]
        longest = np.repeat([span.longest for span in spans], counts)
        rows = heads * longest
        starts, lengths = (
            np.concatenate(parts)
            for parts in zip(*((span.starts, span.lengths) for span in spans), strict=True)
        )
        self.texts = (starts, lengths, longest, np.cumsum(rows) - rows)
        self.heads, self.rows = heads, int(rows.sum())
        self.shapes = [(count * heads, span.longest) for count, span in zip(counts, spans, strict=True)]

    def new(self, like: Tensor) -> list[Tensor]:
        """For each group `[texts * heads, longest, HEAD_WIDTH]`, one after the other in memory."""
        parts = like.new_empty(self.rows, HEAD_WIDTH).split([a * b for a, b in self.shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def pad(self, packed: Tensor, column: int) -> list[Tensor]:
        """The columns of all heads, from `column` on, in the shape of `new`."""
        padded = self.new(packed)
        self._run(kernels.pad, packed, column, padded)
        return padded

    def unpad(self, padded: list[Tensor], packed: Tensor, column: int) -> None:
        """The inverse of `pad`, into those columns."""
        self._run(kernels.unpad, packed, column, padded)

    def _run(self, function: Any, packed: Tensor, column: int, padded: list[Tensor]) -> None:
        # All groups are one piece of memory, see `new`.
        whole = padded[0].as_strided((self.rows, HEAD_WIDTH), (HEAD_WIDTH, 1))
        parallel(function, len(self.texts[0]), raw(packed), column, *self.texts, raw(whole), self.heads)


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        loss, sums = torch.empty(len(targets)), torch.zeros(most_parts(), len(bias))
        factor = np.float32(1 / max(len(targets), 1))
        parallel(kernels.cross_entropy, len(targets), *map(raw, (logits, bias, targets, loss, sums)), factor)
        ctx.grad, ctx.grad_bias = logits.detach(), sums.sum(0).to(bias.dtype)
        return loss.mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        grads = ctx.grad, ctx.grad_bias
        ctx.grad = ctx.grad_bias = None
        if gradients[0] != 1:
            grads = tuple(grad * gradients[0].to(grad.dtype) for grad in grads)
        return *grads, None
