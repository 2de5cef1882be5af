# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
# (numba compiles functions that carry no types)
"""Classifiers with int8 weights, for answering on a CPU.

One text asks a BERT-1 for 13 million multiplications, which is nothing; reading 26 MB of
fp32 weights for them takes milliseconds. So here each weight is one byte, and every row
of a matrix has a scale of its own. Where only [CLS] is computed, products take the
activations as they are, in fp32: the weights alone are rounded. In the blocks below, at
all tokens, both sides are int8, since processors multiply these fastest.

The last block, pooler and output layer are one numba kernel for each text, without a
detour through Python, so that the members of a committee answer side by side on the
cores of one process. In a BERT-1 without convolutions its query is the same for every
text: [CLS] at position 0. Its projection onto the keys is computed once, beforehand.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tinylm.infer.folded import FoldedFrontEnd
from tinylm.model.convolution import ConvolutionalFrontEnd
from tinylm.model.encoder import LAYER_NORM_EPS, Block, Embeddings
from tinylm.model.heads import SequenceClassifier
from tinylm.ops import HEAD_WIDTH
from tinylm.ops.device import supports_bf16, supports_int8
from tinylm.ops.packed import Batch
from tinylm.ops.quantize import TOP, nearest
from tinylm.ops.scalar import ONE, ZERO, exp, f4, kernel, normal
from tinylm.ops.threads import parallel

EPSILON = f4(LAYER_NORM_EPS)
SCORE_SCALE = f4(HEAD_WIDTH**-0.5)


class Product(NamedTuple):
    """A linear layer: `(weight [out, in] of int8) * scale [out] @ x + bias [out]`."""

    weight: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


class Norm(NamedTuple):
    """A LayerNorm."""

    weight: np.ndarray
    bias: np.ndarray


class Words(NamedTuple):
    """Embeddings: int8 rows with their scales, and the position (segment included) in fp32."""

    weight: np.ndarray
    scale: np.ndarray
    position: np.ndarray
    norm: Norm


class Top(NamedTuple):
    """The last block and what follows it. `probe [heads, width]` has no row where texts differ in it."""

    probe: np.ndarray
    query: Product
    key: Product
    value: Product
    output: Product
    attention_norm: Norm
    expand: Product
    contract: Product
    feed_forward_norm: Norm
    pooler: Product
    classifier: Product


class Int8Classifier(nn.Module):
    """A `SequenceClassifier` with int8 weights; for evaluation only.

    Args:
        model: the trained classifier, which is not changed.
    """

    def __init__(self, model: SequenceClassifier) -> None:
        super().__init__()
        encoder = model.encoder
        self.config = model.config
        self.n_labels = model.n_labels
        self.words: Words | None = None
        if encoder.convolution is None:
            self.words = _words(encoder.embeddings)
        else:
            assert isinstance(encoder.convolution, ConvolutionalFrontEnd)
            self.image = copy.deepcopy(encoder)
            self.image.blocks = nn.ModuleList()
            dtype = torch.bfloat16 if supports_bf16() else torch.float32
            self.image.convolution = FoldedFrontEnd(encoder.convolution, self.config.max_tokens, dtype)
        self.lower = copy.deepcopy(encoder.blocks[:-1])
        for block in self.lower:
            _replace_linear(block)
        last = encoder.blocks[-1]
        assert isinstance(last, Block)
        self.top = _top(model, last)
        self.eval()

    @property
    def output_layer(self) -> tuple[np.ndarray, np.ndarray]:
        """As of `SequenceClassifier`."""
        last = self.top.classifier
        return last.weight * last.scale[:, None], last.bias

    @property
    def is_single_threaded(self) -> bool:
        """Whether one text is answered by our kernels alone, on the thread that asks."""
        return self.words is not None and not self.lower

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """Raw output fields (logits), `[texts, labels]`, in the batch's order of texts."""
        if self.words is None:
            x = self.image.embed(batch)
        else:
            x = torch.empty(len(batch.ids), self.config.width)
            ids = batch.ids.numpy()
            parallel(_embed, len(batch), ids, batch.starts, batch.lengths, self.words, x.numpy())
            if not self.lower and not len(self.top.probe):
                self.top = _with_probe(self.top, x[0].numpy())
        for block in self.lower:
            x = block(x, batch)
        logits = torch.empty(len(batch), self.n_labels)
        arrays = x.numpy(), batch.starts, batch.lengths, self.top, logits.numpy()
        parallel(_answer, len(batch), *arrays, together=TOGETHER)
        return logits


class Int8Linear(nn.Module):
    """A linear layer of which both sides are int8, the activations with a scale for each row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.product = _quantised(linear.weight, linear.bias)
        weight = torch.from_numpy(self.product.weight)
        self.weight = weight if supports_int8() else weight.float()  # as `_products` multiplies it

    def forward(self, x: Tensor) -> Tensor:
        """`[rows, in]` to `[rows, out]`, fp32."""
        rounded, scale = torch.empty(x.shape, dtype=torch.int8), torch.empty(len(x))
        parallel(_round, len(x), x.contiguous().numpy(), rounded.numpy(), scale.numpy())
        products = _products(rounded, self.weight)
        y = torch.empty(products.shape)
        parallel(_rescale, len(x), products.numpy(), scale.numpy(), self.product, y.numpy())
        return y


def _products(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T of int8 numbers."""
    if supports_int8():
        # No public operation of PyTorch multiplies int8 matrices on the CPU.
        return torch._int_mm(x, weight.t())
    # PyTorch then has a plain loop for it, many times as slow. fp32 holds whole numbers up to 2^24.
    return x.float() @ weight.float().t()


def _replace_linear(module: nn.Module) -> None:
    for name, part in module.named_children():
        if isinstance(part, nn.Linear):
            setattr(module, name, Int8Linear(part))
        else:
            _replace_linear(part)


def _numpy(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _quantised(weight: Tensor, bias: Tensor | None = None) -> Product:
    """Each row of `weight [out, in]` rounded to int8 with the scale that its largest entry asks for."""
    rows = _numpy(weight)
    scale = np.maximum(np.abs(rows).max(1), np.float32(1e-12)) / np.float32(TOP)
    rounded = np.rint(rows / scale[:, None]).astype(np.int8)
    return Product(rounded, scale, np.zeros(len(rows), np.float32) if bias is None else _numpy(bias))


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(_numpy(norm.weight), _numpy(norm.bias))


def _words(embeddings: Embeddings) -> Words:
    rows = _quantised(embeddings.word.weight)
    position = _numpy(embeddings.position.weight + embeddings.segment)
    return Words(rows.weight, rows.scale, position, _norm(embeddings.norm))


def _top(model: SequenceClassifier, last: Block) -> Top:
    attention = last.attention
    w_key, w_value = attention.key_value.weight.chunk(2)
    linear = (attention.output, last.expand, last.contract, model.pooler, model.classifier)
    output, expand, contract, pooler, classifier = (_quantised(part.weight, part.bias) for part in linear)
    return Top(
        probe=np.zeros((0, model.config.width), np.float32),
        query=_quantised(attention.query.weight, attention.query.bias),
        key=_quantised(w_key),
        value=_quantised(w_value, attention.key_value.bias.chunk(2)[1]),
        output=output,
        attention_norm=_norm(last.attention_norm),
        expand=expand,
        contract=contract,
        feed_forward_norm=_norm(last.feed_forward_norm),
        pooler=pooler,
        classifier=classifier,
    )


def _with_probe(top: Top, first: np.ndarray) -> Top:
    """`top` for texts that all have the row `first [width]` at [CLS]."""
    probe = np.empty((len(first) // HEAD_WIDTH, len(first)), np.float32)
    _project(first, top.query, top.key, probe)
    return top._replace(probe=probe)


@kernel
def _round(part, lo, hi, x, rounded, scale):
    """Rows of x to int8 and a scale for each row."""
    for r in range(lo, hi):
        scale[r] = nearest(x[r], rounded[r])


@kernel
def _rescale(part, lo, hi, products, row_scale, product, y):
    """y = products of int8 rows, with the scales of both sides, plus bias."""
    for r in range(lo, hi):
        for j in range(y.shape[1]):
            y[r, j] = f4(products[r, j]) * row_scale[r] * product.scale[j] + product.bias[j]


@kernel
def _normalise(x, norm):
    """LayerNorm of one row, in place."""
    share = f4(1.0 / len(x))
    s = ZERO
    for j in range(len(x)):
        s += x[j]
    mean = s * share
    q = ZERO
    for j in range(len(x)):
        d = x[j] - mean
        q += d * d
    inverse = ONE / np.sqrt(q * share + EPSILON)
    for j in range(len(x)):
        x[j] = (x[j] - mean) * inverse * norm.weight[j] + norm.bias[j]


@kernel
def _multiply(product, first, count, x, y, column):
    """Rows `first` to `first + count` of the product with each row of x, into columns of y.

    Four rows of x at a time share the reading and conversion of a weight.
    """
    fours = len(x) - len(x) % 4
    for i in range(count):
        row = product.weight[first + i]
        scale, bias = product.scale[first + i], product.bias[first + i]
        for text in range(0, fours, 4):
            x0, x1, x2, x3 = x[text], x[text + 1], x[text + 2], x[text + 3]
            s0, s1, s2, s3 = ZERO, ZERO, ZERO, ZERO
            for j in range(len(row)):
                weight = f4(row[j])
                s0 += weight * x0[j]
                s1 += weight * x1[j]
                s2 += weight * x2[j]
                s3 += weight * x3[j]
            y[text, column + i] = s0 * scale + bias
            y[text + 1, column + i] = s1 * scale + bias
            y[text + 2, column + i] = s2 * scale + bias
            y[text + 3, column + i] = s3 * scale + bias
        for text in range(fours, len(x)):
            x0 = x[text]
            s0 = ZERO
            for j in range(len(row)):
                s0 += f4(row[j]) * x0[j]
            y[text, column + i] = s0 * scale + bias


@kernel
def _project(x, query, key, probe):
    """W_k^T q of each head, scaled for the scores: `probe [heads, width]`; q is the query of x."""
    q = np.empty((1, len(x)), f4)
    _multiply(query, 0, len(x), x.reshape(1, -1), q, 0)
    for i in range(len(x)):
        row, factor = key.weight[i], q[0, i] * key.scale[i] * SCORE_SCALE
        target = probe[i // HEAD_WIDTH]
        if i % HEAD_WIDTH == 0:
            target[:] = ZERO
        for j in range(len(row)):
            target[j] += factor * f4(row[j])


@kernel
def _embed(part, lo, hi, ids, starts, lengths, words, x):
    """Embeddings of texts `lo` to `hi`, `x [tokens, width]`."""
    for text in range(lo, hi):
        for t in range(lengths[text]):
            k = starts[text] + t
            row, scale, target = words.weight[ids[k]], words.scale[ids[k]], x[k]
            for j in range(len(target)):
                target[j] = f4(row[j]) * scale + words.position[t, j]
            _normalise(target, words.norm)


TOGETHER = 8  # texts that read each weight once


@kernel
def _answer(part, lo, hi, x, starts, lengths, top, logits):
    """Logits of texts `lo` to `hi` from what enters the last block, `x [tokens, width]`."""
    for first in range(lo, hi, TOGETHER):
        last = min(first + TOGETHER, hi)
        _answer_together(x, starts[first:last], lengths[first:last], top, logits[first:last])


@kernel
def _answer_together(x, starts, lengths, top, logits):
    width, texts = x.shape[1], len(starts)
    heads = width // HEAD_WIDTH
    probes = np.empty((texts, heads, width), f4)
    for text in range(texts):
        if len(top.probe):
            probes[text] = top.probe
        else:
            _project(x[starts[text]], top.query, top.key, probes[text])
    mixed, context = np.empty((texts, width), f4), np.empty((texts, width), f4)
    hidden, out = np.empty((texts, width), f4), np.empty((texts, width), f4)
    inner = np.empty((texts, 4 * width), f4)
    for head in range(heads):
        for text in range(texts):
            rows = x[starts[text] : starts[text] + lengths[text]]
            _mix(rows, probes[text, head], mixed[text])
        _multiply(top.value, head * HEAD_WIDTH, HEAD_WIDTH, mixed, context, head * HEAD_WIDTH)
    _multiply(top.output, 0, width, context, hidden, 0)
    for text in range(texts):
        for j in range(width):
            hidden[text, j] += x[starts[text], j]
        _normalise(hidden[text], top.attention_norm)
    _multiply(top.expand, 0, 4 * width, hidden, inner, 0)
    for text in range(texts):
        for j in range(4 * width):
            inner[text, j] *= normal(inner[text, j])
    _multiply(top.contract, 0, width, inner, out, 0)
    for text in range(texts):
        for j in range(width):
            hidden[text, j] += out[text, j]
        _normalise(hidden[text], top.feed_forward_norm)
    _multiply(top.pooler, 0, width, hidden, out, 0)
    for text in range(texts):
        for j in range(width):
            v = out[text, j]
            e = exp(ZERO - abs(v + v))
            tanh = (ONE - e) / (ONE + e)
            out[text, j] = tanh if v > ZERO else -tanh
    _multiply(top.classifier, 0, logits.shape[1], out, logits, 0)


@kernel
def _mix(rows, probe, mixed):
    """Attention of one head: the mean of `rows [tokens, width]` by the softmax of their scores."""
    weights = np.empty(len(rows), f4)
    highest = f4(-3e38)
    for t in range(len(rows)):
        row = rows[t]
        s = ZERO
        for j in range(len(row)):
            s += probe[j] * row[j]
        weights[t] = s
        highest = max(highest, s)
    total = ZERO
    for t in range(len(rows)):
        weights[t] = exp(weights[t] - highest)
        total += weights[t]
    mixed[:] = ZERO
    for t in range(len(rows)):
        row, weight = rows[t], weights[t] / total
        for j in range(len(row)):
            mixed[j] += weight * row[j]
