"""The whole committee as one ONNX graph: how every prediction is computed.

The graph is written node by node, not traced from our encoder: packed batches (see `ops/packed.py`)
need Python loops, which a graph cannot hold. So here texts are padded. The results are the same,
with the last block's shortcut for [CLS] (`Attention.first_tokens`), the convolutions' image, and
shorter texts for a member with fewer `max_tokens` than the others.

In int8, weights are stored in 8 bits with a scale for every 64 of them. The large products are
computed in 8 bits too, by an operator of onnxruntime (`MatMulNBits`) that rounds the other factor
token by token. onnxruntime's own dynamic quantization has one scale for the whole batch, so that a
prediction would depend on what else is in the batch.

Nothing here needs PyTorch: a member is its configuration and its weights as stored on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinylm.model.config import (
    LAYER_NORM_EPS,
    STORED_IDF,
    STORED_TOKEN_WEIGHTS,
    ModelConfig,
    TokenConfig,
    TokenTfidfConfig,
)
from tinylm.model.weights import Weight, Weights
from tinylm.ops import HEAD_WIDTH, PAD_ID
from tinylm.ops.quantize import to_int8

OPSET = 20  # the first with Gelu
IR_VERSION = 9  # the form of file of that time, which every runtime since then reads
INPUTS = ("input_ids", "attention_mask")
MICROSOFT = "com.microsoft"  # the domain of onnxruntime's own operators
MASKED = -1e9  # added to the attention scores of padding
BATCH_NORM_EPS = 1e-5
BLOCK = HEAD_WIDTH  # weights that share a scale in int8; every width is a multiple of it
SMALL = 1024  # bytes; arrays up to this size are part of the graph's structure


@dataclass(frozen=True)
class CommitteeGraph:
    """A graph whose large weights are kept apart, so that nothing copies them.

    Attributes:
        structure: the model without `arrays`, which it calls external.
        arrays: by name, the weights that are in memory.
        folder: the weights that are in files lie under this folder; None where there are none.
    """

    structure: onnx.ModelProto
    arrays: dict[str, np.ndarray]
    folder: Path | None

    def complete(self) -> onnx.ModelProto:
        """One model with all weights inside, for a file. None may lie in files."""
        assert self.folder is None
        model = onnx.ModelProto()
        model.CopyFrom(self.structure)
        for tensor in model.graph.initializer:
            if tensor.name in self.arrays:
                tensor.CopyFrom(numpy_helper.from_array(self.arrays[tensor.name], tensor.name))
        onnx.checker.check_model(model, full_check=True)
        return model


def committee_graph(
    members: Sequence[tuple[TokenConfig, Weights]],
    n_labels: int,
    sep_id: int,
    int8: bool = False,
    mapped: bool = False,
) -> CommitteeGraph:
    """One graph for all members.

    Inputs: `input_ids` and `attention_mask`, `int64 [texts, tokens]`, at most as many tokens as
    the longest member's `max_tokens`. Outputs: `logits [texts, labels]`, the sum of the members'
    logits, and `member_logits [members, texts, labels]`.

    Args:
        members: configuration and weights of each; with the same vocabulary and labels.
        n_labels: of all members.
        sep_id: id of [SEP], the end of a text that a member cuts shorter than the others do.
        int8: store weights in 8 bits, and compute with them.
        mapped: leave tables of which a prediction reads few rows in their files.
    """
    graph = _Graph(int8, mapped)
    longest = max(config.max_tokens for config, _ in members)
    logits = [_member_logits(graph, config, weights, sep_id, longest) for config, weights in members]
    rows = [graph.add("Unsqueeze", row, axis(0)) for row in logits]
    stacked = graph.add("Concat", *rows, axis=0, output="member_logits")
    graph.add("ReduceSum", stacked, axis(0), keepdims=0, output="logits")
    folder = graph.folder()
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
            graph.initializers,
        ),
        opset_imports=[
            helper.make_opsetid("", OPSET),
            *([helper.make_opsetid(MICROSOFT, 1)] if int8 else []),
        ],
        ir_version=IR_VERSION,
        producer_name="tinylm",
    )
    return CommitteeGraph(model, graph.arrays, folder)


def axis(number: int) -> np.ndarray:
    """An axis as operators take it, as an input."""
    return np.array([number])


class _Graph:
    """The nodes and weights of a graph as it grows."""

    def __init__(self, int8: bool, mapped: bool) -> None:
        self.int8, self.mapped = int8, mapped
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._in_files: list[tuple[TensorProto, Path, int]] = []

    def add(
        self, operator: str, *inputs: str | np.ndarray | Weight, output: str = "", **attributes: Any
    ) -> str:
        """Add a node and return the name of its output; what is not a name is a weight of the graph."""
        names = [x if isinstance(x, str) else self._initializer(x) for x in inputs]
        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def _initializer(self, weight: np.ndarray | Weight) -> str:
        array = weight.data if isinstance(weight, Weight) else weight
        name = f"weight_{len(self.initializers)}"
        if array.nbytes <= SMALL:
            self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
            return name
        tensor = TensorProto(
            name=name,
            dims=array.shape,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            data_location=TensorProto.EXTERNAL,
        )
        if isinstance(weight, Weight) and weight.place and self.mapped:
            self._in_files.append((tensor, Path(os.path.realpath(weight.place[0])), weight.place[1]))
        else:
            self.arrays[name] = np.asarray(array, order="C")
            tensor.external_data.add(key="location", value="memory")  # it is handed over with the session
        self.initializers.append(tensor)
        return name

    def folder(self) -> Path | None:
        """The folder that holds all files of weights; gives each such tensor its path relative to it."""
        if not self._in_files:
            return None
        folder = Path(os.path.commonpath([path.parent for _, path, _ in self._in_files]))
        for tensor, path, first in self._in_files:
            size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * int(np.prod(tensor.dims))
            where = {"location": path.relative_to(folder).as_posix(), "offset": first, "length": size}
            for key, value in where.items():
                tensor.external_data.add(key=key, value=str(value))
        return folder

    # What several parts of a model need; `x` names hidden states `[..., width]`.

    def linear(self, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """`x` times `weight [out, in]`, plus `bias [out]`."""
        if not self.int8:
            return self.add("Add", self.add("MatMul", x, weight.T), bias)
        n_out, n_in = weight.shape
        rounded, scale = to_int8(weight.reshape(n_out, -1, BLOCK))
        unsigned = (rounded.astype(np.int16) + 128).astype(np.uint8)
        product = self.add(
            "MatMulNBits", x, unsigned, scale.ravel(), domain=MICROSOFT,
            K=n_in, N=n_out, bits=8, block_size=BLOCK, accuracy_level=4,
        )  # fmt: skip
        return self.add("Add", product, bias)

    def stored(self, weight: np.ndarray) -> str | np.ndarray:
        """A weight to compute with in fp32: in int8, onnxruntime restores it when it loads the file."""
        if not self.int8:
            return weight
        rounded, scale = to_int8(weight)
        return self.add("Mul", self.add("Cast", rounded, to=TensorProto.FLOAT), scale)

    def rows(self, table: Weight, ids: str) -> str:
        """Rows of a table; in int8, only those that are read are restored."""
        if self.int8 and table.scale is None:
            table = Weight(*to_int8(table.data))
        if table.scale is None:
            return self.add("Gather", table, ids)
        restored = self.add("Cast", self.add("Gather", table, ids), to=TensorProto.FLOAT)
        return self.add("Mul", restored, self.add("Gather", table.scale, ids))

    def norm(self, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        return self.add("LayerNormalization", x, weight, bias, axis=-1, epsilon=LAYER_NORM_EPS)

    def tokens(self, x: str, start: int, end: str | np.ndarray) -> str:
        """`x [texts, tokens, ...]` from token `start` to `end` (`[1]`)."""
        return self.add("Slice", x, axis(start), end, axis(1))

    def length(self, ids: str) -> str:
        """Number of tokens of `ids [texts, tokens]`, `[1]`."""
        return self.add("Shape", ids, start=1, end=2)


class _Part:
    """The weights whose names begin alike, and what they are for."""

    def __init__(self, graph: _Graph, weights: Weights, name: str) -> None:
        self._graph, self._weights, self._name = graph, weights, name

    def __getitem__(self, name: str) -> np.ndarray:
        """A weight in fp32."""
        return self._weights[f"{self._name}.{name}"].value

    def part(self, name: str) -> _Part:
        return _Part(self._graph, self._weights, f"{self._name}.{name}")

    def table(self) -> Weight:
        return self._weights[f"{self._name}.weight"]

    def linear(self, x: str) -> str:
        return self._graph.linear(x, self["weight"], self["bias"])

    def norm(self, x: str) -> str:
        return self._graph.norm(x, self["weight"], self["bias"])


def _member_logits(graph: _Graph, config: TokenConfig, weights: Weights, sep_id: int, longest: int) -> str:
    """One member's logits, `[texts, labels]`."""
    limit = config.max_tokens
    ids, mask = INPUTS if limit == longest else _cut(graph, limit, sep_id)
    return NODES[type(config)](graph, config, weights, ids, mask)


def _encoder_logits(graph: _Graph, config: ModelConfig, weights: Weights, ids: str, mask: str) -> str:
    """The logits of a BERT-n."""
    bert = _Part(graph, weights, "bert")
    padding = graph.add("Sub", np.ones(1, np.float32), graph.add("Cast", mask, to=TensorProto.FLOAT))
    score_mask = graph.add("Unsqueeze", graph.add("Mul", padding, np.array([MASKED], np.float32)), axis(1))
    embeddings = bert.part("embeddings")
    x = (
        _embed(graph, ids, embeddings)
        if config.convolution is None
        else _convolve(graph, ids, config, embeddings, bert.part("convolution.stages"))
    )
    *blocks, last = (bert.part(f"encoder.layer.{layer}") for layer in range(config.layers))
    for block in blocks:
        x = _finish(graph, _attend(graph, x, score_mask, config.heads, block.part("attention")), x, block)
    attention = last.part("attention")
    if config.pooling == "first":
        first = graph.add("Gather", x, np.array(0), axis=1)
        attended = _attend_first(graph, first, x, score_mask, config.heads, attention)
        read = _finish(graph, attended, first, last)
    else:
        attended = _attend(graph, x, score_mask, config.heads, attention)
        if config.pooling == "mean":
            read = _mean(graph, _finish(graph, attended, x, last), mask)
        else:
            read = _feed_forward(graph, _mean(graph, _add(graph, attended, x, last), mask), last)
    pooled = graph.add("Tanh", bert.part("pooler.dense").linear(read))
    return _Part(graph, weights, "classifier").linear(pooled)


def _token_tfidf_logits(
    graph: _Graph, config: TokenTfidfConfig, weights: Weights, ids: str, mask: str
) -> str:
    """The logits of a TF-IDF member of before. A token's weight is shared among its occurrences in a text."""
    real = graph.add("Cast", mask, to=TensorProto.FLOAT)  # [texts, tokens]
    column = graph.add("Unsqueeze", real, axis(2))
    same = graph.add("Equal", graph.add("Unsqueeze", ids, axis(2)), graph.add("Unsqueeze", ids, axis(1)))
    counts = graph.add("MatMul", graph.add("Cast", same, to=TensorProto.FLOAT), column)
    counts = graph.add("Max", graph.add("Squeeze", counts, axis(2)), np.ones(1, np.float32))
    growth = graph.add("Add", graph.add("Log", counts), np.ones(1, np.float32))
    strength = graph.add("Mul", growth, graph.add("Gather", weights[STORED_IDF], ids))
    share = graph.add("Div", graph.add("Mul", strength, real), counts)
    squares = graph.add("ReduceSum", graph.add("Mul", share, strength), axis(1))  # [texts, 1]
    length = graph.add("Max", graph.add("Sqrt", squares), np.array([1e-12], np.float32))
    rows = graph.rows(weights[STORED_TOKEN_WEIGHTS], ids)  # [texts, tokens, labels]
    summed = graph.add("MatMul", graph.add("Unsqueeze", share, axis(1)), rows)
    logits = graph.add("Div", graph.add("Squeeze", summed, axis(1)), length)
    return graph.add("Add", logits, weights["cls.predictions.bias"])


# What each kind of member adds to the graph.
NODES: dict[type, Callable[[_Graph, Any, Weights, str, str], str]] = {
    ModelConfig: _encoder_logits,
    TokenTfidfConfig: _token_tfidf_logits,
}


def _cut(graph: _Graph, limit: int, sep_id: int) -> tuple[str, str]:
    """Ids and mask as a member with `limit` tokens sees them: longer texts end in [SEP] there."""
    ids, mask = (graph.tokens(name, 0, axis(limit)) for name in INPUTS)
    at_limit = graph.add("Slice", np.arange(limit) == limit - 1, axis(0), graph.length(ids))
    is_sep = graph.add("And", graph.add("Cast", mask, to=TensorProto.BOOL), at_limit)
    return graph.add("Where", is_sep, np.array([sep_id]), ids), mask


def _embed(graph: _Graph, ids: str, embeddings: _Part) -> str:
    """`[texts, tokens]` to `[texts, tokens, width]`."""
    words = graph.rows(embeddings.part("word_embeddings").table(), ids)
    # The segment is the same for all tokens, so the graph holds it as part of the positions.
    positions = embeddings["position_embeddings.weight"] + embeddings["token_type_embeddings.weight"][0]
    shifts = graph.add("Slice", positions, axis(0), graph.length(ids))
    return embeddings.part("LayerNorm").norm(graph.add("Add", words, shifts))


def _convolve(graph: _Graph, ids: str, config: ModelConfig, embeddings: _Part, stages: _Part) -> str:
    """Embedding and front end; padded rows take part as far as they reach, see `image_height`."""
    front = config.convolution
    assert front is not None
    length = graph.length(ids)
    room = graph.add("Sub", axis(config.max_tokens), length)
    more = graph.add("Concat", np.zeros(3, np.int64), graph.add("Min", room, np.array([front.reach])), axis=0)
    x = _embed(graph, graph.add("Pad", ids, more, np.array(PAD_ID)), embeddings)
    x = graph.add("Unsqueeze", x, axis(1))  # an image of one channel
    for number, (_, _, kernel) in enumerate(front.stages):
        convolution, norm = stages.part(f"{2 * number}"), stages.part(f"{2 * number + 1}")
        before = [(side - 1) // 2 for side in kernel]  # an even kernel pads one more behind
        behind = [side // 2 for side in kernel]
        x = graph.add("Conv", x, convolution["weight"], convolution["bias"], pads=before + behind)
        statistics = (norm[name] for name in ("weight", "bias", "running_mean", "running_var"))
        x = graph.add("Gelu", graph.add("BatchNormalization", x, *statistics, epsilon=BATCH_NORM_EPS))
    return graph.tokens(graph.add("Squeeze", x, axis(1)), 0, length)


def _attend(graph: _Graph, x: str, score_mask: str, heads: int, attention: _Part) -> str:
    """Attention of every token, `[texts, tokens, width]`."""

    def per_head(y: str) -> str:
        """`[texts, tokens, width]` to `[texts, heads, tokens, 64]`."""
        split = graph.add("Reshape", y, np.array([0, 0, heads, HEAD_WIDTH]))
        return graph.add("Transpose", split, perm=(0, 2, 1, 3))

    scale = np.float32(HEAD_WIDTH**-0.5)
    query = graph.linear(x, attention["self.query.weight"] * scale, attention["self.query.bias"] * scale)
    key, value = (per_head(attention.part(name).linear(x)) for name in ("self.key", "self.value"))
    scores = graph.add("MatMul", per_head(query), graph.add("Transpose", key, perm=(0, 1, 3, 2)))
    masked = graph.add("Add", scores, graph.add("Unsqueeze", score_mask, axis(1)))
    context = graph.add("MatMul", graph.add("Softmax", masked, axis=-1), value)
    merged = graph.add("Reshape", graph.add("Transpose", context, perm=(0, 2, 1, 3)), np.array([0, 0, -1]))
    return attention.part("output.dense").linear(merged)


def _attend_first(graph: _Graph, first: str, x: str, score_mask: str, heads: int, attention: _Part) -> str:
    """Attention of the first token alone, `[texts, width]`; see `Attention.first_tokens`."""
    w_key, w_value = (
        attention[f"self.{name}.weight"].reshape(heads, HEAD_WIDTH, -1) for name in ("key", "value")
    )
    b_value = attention["self.value.bias"].reshape(heads, 1, HEAD_WIDTH)
    split = graph.add("Reshape", attention.part("self.query").linear(first), np.array([0, heads, HEAD_WIDTH]))
    query = graph.add("Transpose", split, perm=(1, 0, 2))  # [heads, texts, 64]
    scaled = graph.stored(w_key * np.float32(HEAD_WIDTH**-0.5))
    probe = graph.add("Transpose", graph.add("MatMul", query, scaled), perm=(1, 0, 2))
    scores = graph.add("MatMul", probe, graph.add("Transpose", x, perm=(0, 2, 1)))  # [texts, heads, tokens]
    weights = graph.add("Softmax", graph.add("Add", scores, score_mask), axis=-1)
    sums = graph.add("Transpose", graph.add("MatMul", weights, x), perm=(1, 0, 2))  # [heads, texts, width]
    context = graph.add("Add", graph.add("MatMul", sums, graph.stored(w_value.swapaxes(1, 2))), b_value)
    merged = graph.add("Reshape", graph.add("Transpose", context, perm=(1, 0, 2)), np.array([0, -1]))
    return attention.part("output.dense").linear(merged)


def _mean(graph: _Graph, x: str, mask: str) -> str:
    """Mean of `x [texts, tokens, width]` over the tokens that are not padding, `[texts, width]`."""
    real = graph.add(
        "Unsqueeze", graph.add("Cast", mask, to=TensorProto.FLOAT), axis(1)
    )  # [texts, 1, tokens]
    summed = graph.add("Squeeze", graph.add("MatMul", real, x), axis(1))
    return graph.add("Div", summed, graph.add("ReduceSum", real, axis(2), keepdims=0))


def _finish(graph: _Graph, attended: str, residual: str, block: _Part) -> str:
    """What follows the attention in a block."""
    return _feed_forward(graph, _add(graph, attended, residual, block), block)


def _add(graph: _Graph, attended: str, residual: str, block: _Part) -> str:
    """The residual connection and the LayerNorm behind the attention."""
    return block.part("attention.output.LayerNorm").norm(graph.add("Add", attended, residual))


def _feed_forward(graph: _Graph, x: str, block: _Part) -> str:
    inner = graph.add("Gelu", block.part("intermediate.dense").linear(x))
    contracted = block.part("output.dense").linear(inner)
    return block.part("output.LayerNorm").norm(graph.add("Add", contracted, x))
