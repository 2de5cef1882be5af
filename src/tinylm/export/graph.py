"""The whole committee as one ONNX graph.

The graph is written node by node, not traced from our encoder: packed batches (see `batch.py`)
are the work of Python loops, which no graph holds, so here texts are padded. What is computed is
the same: the last block's short way for [CLS] (`Attention.first_tokens`), the convolutions'
image, and what a member with fewer `max_tokens` than the others sees.

In int8, weights are stored in 8 bits with a scale for every 64 of them. The large products are
computed in 8 bits too, by an operator of onnxruntime (`MatMulNBits`) that rounds the other factor
token by token: unlike with a scale for the whole batch, which is what onnxruntime's own dynamic
quantization has, an answer does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tinylm.model.convolution import ConvolutionalFrontEnd
from tinylm.model.encoder import Attention, Block, Embeddings, Encoder
from tinylm.model.heads import SequenceClassifier
from tinylm.model.tfidf import TfidfClassifier
from tinylm.ops import HEAD_WIDTH
from tinylm.ops.packed import PAD_ID
from tinylm.ops.quantize import to_int8

OPSET = 20  # the first with Gelu
IR_VERSION = 9  # the form of file of that time, which every runtime since then reads
INPUTS = ("input_ids", "attention_mask")
MICROSOFT = "com.microsoft"  # the domain of onnxruntime's own operators
MASKED = -1e9  # added to the attention scores of padding
BLOCK = HEAD_WIDTH  # weights that share a scale in int8; every width is a multiple of it


def committee_graph(
    members: Sequence[SequenceClassifier | TfidfClassifier], sep_id: int, int8: bool
) -> onnx.ModelProto:
    """One graph for all members.

    Inputs: `input_ids` and `attention_mask`, `int64 [texts, tokens]`, at most as many tokens as
    the longest member's `max_tokens`. Outputs: `logits [texts, labels]`, the sum of the members'
    raw fields, and `member_logits [members, texts, labels]`.

    Args:
        members: with the same vocabulary and labels.
        sep_id: id of [SEP], the end of a text that a member cuts shorter than the others do.
        int8: store weights in 8 bits.
    """
    graph = _Graph(int8)
    longest = max(member.config.max_tokens for member in members)
    fields = [_member_logits(graph, member, sep_id, longest) for member in members]
    rows = [graph.add("Unsqueeze", field, axis(0)) for field in fields]
    stacked = graph.add("Concat", *rows, axis=0, output="member_logits")
    graph.add("ReduceSum", stacked, axis(0), keepdims=0, output="logits")
    n_labels = members[0].n_labels
    value = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "soft_committee",
            [value(name, TensorProto.INT64, ["texts", "tokens"]) for name in INPUTS],
            [
                value("logits", TensorProto.FLOAT, ["texts", n_labels]),
                value("member_logits", TensorProto.FLOAT, [len(members), "texts", n_labels]),
            ],
            graph.weights,
        ),
        opset_imports=[
            helper.make_opsetid("", OPSET),
            *([helper.make_opsetid(MICROSOFT, 1)] if int8 else []),
        ],
        ir_version=IR_VERSION,
        producer_name="tinylm",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def axis(number: int) -> np.ndarray:
    """An axis as operators take it, as an input."""
    return np.array([number])


class _Graph:
    """The nodes and weights of a graph as it grows."""

    def __init__(self, int8: bool) -> None:
        self.int8 = int8
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(
        self, operator: str, *inputs: str | np.ndarray | Tensor, output: str = "", **attributes: Any
    ) -> str:
        """Add a node and return the name of its output; arrays and tensors are weights of the graph."""
        names = [x if isinstance(x, str) else self._weight(x) for x in inputs]
        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def _weight(self, array: np.ndarray | Tensor) -> str:
        if isinstance(array, Tensor):
            array = array.detach().numpy()
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    # What several parts of a model need; `x` names hidden states `[..., width]`.

    def linear(self, x: str, weight: Tensor, bias: Tensor) -> str:
        """`x` times `weight [out, in]`, plus `bias [out]`."""
        if not self.int8:
            return self.add("Add", self.add("MatMul", x, weight.t()), bias)
        n_out, n_in = weight.shape
        rounded, scale = to_int8(weight.unflatten(1, (-1, BLOCK)))
        unsigned = (rounded.int() + 128).to(torch.uint8)
        product = self.add(
            "MatMulNBits", x, unsigned, scale.flatten(), domain=MICROSOFT,
            K=n_in, N=n_out, bits=8, block_size=BLOCK, accuracy_level=4,
        )  # fmt: skip
        return self.add("Add", product, bias)

    def stored(self, weight: Tensor) -> str | Tensor:
        """A weight to compute with in fp32: in int8, onnxruntime restores it when it loads the file."""
        if not self.int8:
            return weight
        rounded, scale = to_int8(weight)
        return self.add("Mul", self.add("Cast", rounded, to=TensorProto.FLOAT), scale)

    def rows(self, table: Tensor, ids: str) -> str:
        """Rows of an embedding; in int8, only those that are read are restored."""
        if not self.int8:
            return self.add("Gather", table, ids)
        rounded, scale = to_int8(table)
        restored = self.add("Cast", self.add("Gather", rounded, ids), to=TensorProto.FLOAT)
        return self.add("Mul", restored, self.add("Gather", scale, ids))

    def norm(self, x: str, layer: nn.LayerNorm) -> str:
        return self.add("LayerNormalization", x, layer.weight, layer.bias, axis=-1, epsilon=layer.eps)

    def tokens(self, x: str, start: int, end: str | np.ndarray) -> str:
        """`x [texts, tokens, ...]` from token `start` to `end` (`[1]`)."""
        return self.add("Slice", x, axis(start), end, axis(1))

    def length(self, ids: str) -> str:
        """Number of tokens of `ids [texts, tokens]`, `[1]`."""
        return self.add("Shape", ids, start=1, end=2)


def _member_logits(
    graph: _Graph, model: SequenceClassifier | TfidfClassifier, sep_id: int, longest: int
) -> str:
    """One member's raw fields, `[texts, labels]`."""
    limit = model.config.max_tokens
    ids, mask = INPUTS if limit == longest else _cut(graph, limit, sep_id)
    if isinstance(model, TfidfClassifier):
        return _weigh_tokens(graph, ids, mask, model)
    encoder = model.encoder
    padding = graph.add("Sub", np.ones(1, np.float32), graph.add("Cast", mask, to=TensorProto.FLOAT))
    score_mask = graph.add("Unsqueeze", graph.add("Mul", padding, np.array([MASKED], np.float32)), axis(1))

    x = (
        _embed(graph, ids, encoder.embeddings)
        if encoder.convolution is None
        else _convolve(graph, ids, encoder)
    )
    *blocks, last = cast(Sequence[Block], encoder.blocks)
    for block in blocks:
        x = _finish(graph, _attend(graph, x, score_mask, block.attention), x, block)
    first = graph.add("Gather", x, np.array(0), axis=1)
    x = _finish(graph, _attend_first(graph, first, x, score_mask, last.attention), first, last)
    return _linear(graph, graph.add("Tanh", _linear(graph, x, model.pooler)), model.classifier)


def _weigh_tokens(graph: _Graph, ids: str, mask: str, model: TfidfClassifier) -> str:
    """The linear member's field. A token's weight is shared equally among its occurrences in a text."""
    real = graph.add("Cast", mask, to=TensorProto.FLOAT)  # [texts, tokens]
    column = graph.add("Unsqueeze", real, axis(2))
    same = graph.add("Equal", graph.add("Unsqueeze", ids, axis(2)), graph.add("Unsqueeze", ids, axis(1)))
    counts = graph.add("MatMul", graph.add("Cast", same, to=TensorProto.FLOAT), column)
    counts = graph.add("Max", graph.add("Squeeze", counts, axis(2)), np.ones(1, np.float32))
    growth = graph.add("Add", graph.add("Log", counts), np.ones(1, np.float32))
    strength = graph.add("Mul", growth, graph.add("Gather", model.rarity, ids))
    share = graph.add("Div", graph.add("Mul", strength, real), counts)
    squares = graph.add("ReduceSum", graph.add("Mul", share, strength), axis(1))  # [texts, 1]
    length = graph.add("Max", graph.add("Sqrt", squares), np.array([1e-12], np.float32))
    votes = graph.rows(model.votes.weight, ids)  # [texts, tokens, labels]
    summed = graph.add("MatMul", graph.add("Unsqueeze", share, axis(1)), votes)
    field = graph.add("Div", graph.add("Squeeze", summed, axis(1)), length)
    return graph.add("Add", field, model.bias)


def _cut(graph: _Graph, limit: int, sep_id: int) -> tuple[str, str]:
    """Ids and mask as a member with `limit` tokens sees them: longer texts end in [SEP] there."""
    ids, mask = (graph.tokens(name, 0, axis(limit)) for name in INPUTS)
    at_limit = graph.add("Slice", np.arange(limit) == limit - 1, axis(0), graph.length(ids))
    is_sep = graph.add("And", graph.add("Cast", mask, to=TensorProto.BOOL), at_limit)
    return graph.add("Where", is_sep, np.array([sep_id]), ids), mask


def _embed(graph: _Graph, ids: str, layer: Embeddings) -> str:
    """`[texts, tokens]` to `[texts, tokens, width]`."""
    words = graph.rows(layer.word.weight, ids)
    # The segment is the same for all tokens, so the file holds it as part of the positions.
    places = graph.add("Slice", layer.position.weight + layer.segment, axis(0), graph.length(ids))
    return graph.norm(graph.add("Add", words, places), layer.norm)


def _convolve(graph: _Graph, ids: str, encoder: Encoder) -> str:
    """Embedding and front end; padded rows take part as far as they reach, see `image_height`."""
    front, shape = encoder.convolution, encoder.config.convolution
    assert isinstance(front, ConvolutionalFrontEnd) and shape is not None
    length = graph.length(ids)
    room = graph.add("Sub", axis(encoder.config.max_tokens), length)
    more = graph.add("Concat", np.zeros(3, np.int64), graph.add("Min", room, np.array([shape.reach])), axis=0)
    x = _embed(graph, graph.add("Pad", ids, more, np.array(PAD_ID)), encoder.embeddings)
    x = graph.add("Unsqueeze", x, axis(1))  # an image of one channel
    for stage in front.stages:
        weights: list[Tensor] = list(stage.state_dict().values())
        if isinstance(stage, nn.Conv2d):
            both = [side - 1 for side in stage.kernel_size]
            before = [side // 2 for side in both]  # an even kernel pads one more behind
            after = [side - half for side, half in zip(both, before, strict=True)]
            x = graph.add("Conv", x, *weights, pads=before + after)
        else:
            assert isinstance(stage, nn.BatchNorm2d)
            # The last tensor is its count of batches.
            x = graph.add("Gelu", graph.add("BatchNormalization", x, *weights[:4], epsilon=stage.eps))
    return graph.tokens(graph.add("Squeeze", x, axis(1)), 0, length)


def _attend(graph: _Graph, x: str, score_mask: str, layer: Attention) -> str:
    """Attention of every token, `[texts, tokens, width]`."""

    def heads(y: str) -> str:
        """`[texts, tokens, width]` to `[texts, heads, tokens, 64]`."""
        split = graph.add("Reshape", y, np.array([0, 0, layer.heads, HEAD_WIDTH]))
        return graph.add("Transpose", split, perm=(0, 2, 1, 3))

    scale = HEAD_WIDTH**-0.5
    query = heads(graph.linear(x, layer.query.weight * scale, layer.query.bias * scale))
    key, value = (
        heads(graph.linear(x, weight, bias))
        for weight, bias in zip(layer.key_value.weight.chunk(2), layer.key_value.bias.chunk(2), strict=True)
    )
    scores = graph.add("MatMul", query, graph.add("Transpose", key, perm=(0, 1, 3, 2)))
    masked = graph.add("Add", scores, graph.add("Unsqueeze", score_mask, axis(1)))
    context = graph.add("MatMul", graph.add("Softmax", masked, axis=-1), value)
    merged = graph.add("Reshape", graph.add("Transpose", context, perm=(0, 2, 1, 3)), np.array([0, 0, -1]))
    return _linear(graph, merged, layer.output)


def _attend_first(graph: _Graph, first: str, x: str, score_mask: str, layer: Attention) -> str:
    """Attention of the first token alone, `[texts, width]`; see `Attention.first_tokens`."""
    per_head = (layer.heads, HEAD_WIDTH)
    w_key, w_value = (part.unflatten(0, per_head) for part in layer.key_value.weight.chunk(2))
    b_value = layer.key_value.bias.chunk(2)[1].unflatten(0, per_head)
    split = graph.add("Reshape", _linear(graph, first, layer.query), np.array([0, *per_head]))
    query = graph.add("Transpose", split, perm=(1, 0, 2))  # [heads, texts, 64]
    probe = graph.add(
        "Transpose", graph.add("MatMul", query, graph.stored(w_key * HEAD_WIDTH**-0.5)), perm=(1, 0, 2)
    )
    scores = graph.add("MatMul", probe, graph.add("Transpose", x, perm=(0, 2, 1)))  # [texts, heads, tokens]
    weights = graph.add("Softmax", graph.add("Add", scores, score_mask), axis=-1)
    sums = graph.add("Transpose", graph.add("MatMul", weights, x), perm=(1, 0, 2))  # [heads, texts, width]
    context = graph.add(
        "Add", graph.add("MatMul", sums, graph.stored(w_value.transpose(1, 2))), b_value[:, None]
    )
    merged = graph.add("Reshape", graph.add("Transpose", context, perm=(1, 0, 2)), np.array([0, -1]))
    return _linear(graph, merged, layer.output)


def _finish(graph: _Graph, attended: str, residual: str, block: Block) -> str:
    """What follows the attention in a block."""
    x = graph.norm(graph.add("Add", attended, residual), block.attention_norm)
    inner = _linear(graph, graph.add("Gelu", _linear(graph, x, block.expand)), block.contract)
    return graph.norm(graph.add("Add", inner, x), block.feed_forward_norm)


def _linear(graph: _Graph, x: str, layer: nn.Linear) -> str:
    return graph.linear(x, layer.weight, layer.bias)
