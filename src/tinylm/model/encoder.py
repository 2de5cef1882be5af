"""The encoder of BERT-n on packed batches.

It computes what a textbook BERT computes, but does less work for it:

- hidden states are `[tokens, width]`, the texts of a batch one after the other
  (see `ops/packed.py`); only the attention, and a convolutional front end, pad;
- the last block works only where its output is read: at the masked tokens of masked
  language modelling, or at [CLS], for which not even keys and values are formed. A classifier
  that reads a mean over all tokens needs the attention at all of them, and the feed-forward as well
  unless the mean is taken before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from tinylm.model.config import LAYER_NORM_EPS, ModelConfig
from tinylm.model.convolution import ConvolutionalFrontEnd
from tinylm.ops import HEAD_WIDTH, PAD_ID
from tinylm.ops.autograd import Groups, attention, dropout, dropout_add_norm, gelu
from tinylm.ops.embedding import Embedding
from tinylm.ops.fixed import StaticBatch
from tinylm.ops.int8_linear import Linear
from tinylm.ops.packed import Batch


class Embeddings(nn.Module):
    """Word plus position plus (constant) segment embedding, LayerNorm, dropout.

    The segment embedding is what HuggingFace calls token type 0. It is kept so
    that weights can be exchanged; no input has a second segment.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word = Embedding(config.vocab_size, config.width, padding_idx=PAD_ID)
        self.position = nn.Embedding(config.max_tokens, config.width)
        self.segment = nn.Parameter(torch.zeros(config.width))
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = config.dropout

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """`ids` and `positions`, both `[tokens]`, to `[tokens, width]`."""
        words = self.word(ids)
        shifts = F.embedding(positions, self.position.weight + self.segment)
        x = dropout_add_norm(words, shifts, self.norm, 0.0)  # nothing is dropped before the LayerNorm
        return dropout(x, self.dropout) if self.training else x


class Attention(nn.Module):
    """Multi-head self-attention with its output projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = Linear(config.width, config.width)
        self.key_value = Linear(config.width, 2 * config.width)
        self.output = Linear(config.width, config.width)
        self.dropout = config.dropout

    def forward(self, queries: Tensor, x: Tensor, groups: Groups) -> Tensor:
        """Rows `queries [queries, width]` look at all of `x [tokens, width]`: `[queries, width]`."""
        probability = self.dropout if self.training else 0.0
        query, key_value = self.query(queries), self.key_value(x)
        out: Tensor = self.output(attention(query, key_value, groups, self.heads, probability))
        return out

    def first_tokens(self, x: Tensor, batch: Batch | StaticBatch) -> Tensor:
        """What `forward` gives with the first token of each text as query, `[texts, width]`.

        With one query per text the keys need not be formed: q . (W_k x + b_k) is
        (W_k^T q) . x plus a constant that softmax ignores. Nor need the values:
        the attention-weighted sum of `x` is taken first and W_v applied after it.
        """
        per_head = (self.heads, HEAD_WIDTH)
        w_key, w_value = (part.unflatten(0, per_head) for part in self.key_value.weight.chunk(2))
        b_value = self.key_value.bias.chunk(2)[1].unflatten(0, per_head)
        query = self.query(x[batch.first]).unflatten(1, per_head).transpose(0, 1)  # [heads, texts, 64]
        # Each head's query as seen from x: [texts, heads, width].
        probe = (query @ w_key).transpose(0, 1) * HEAD_WIDTH**-0.5
        groups: Groups = batch.groups
        probes = probe.split([len(group.keys) for group in groups])
        sums, shares = [], []
        for group, queries in zip(groups, probes, strict=True):
            padded = group.keys.pad(x)
            scores = queries @ padded.transpose(1, 2)  # [texts, heads, longest]
            mask = group.keys.mask(x.device)
            if mask is not None:
                scores = scores.masked_fill(~mask[:, None, :], float("-inf"))
            weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
            sums.append(weights @ padded)
            shares.append(weights.sum(-1))  # 1, unless dropout changed it: the share of b_value
        context = torch.cat(sums).transpose(0, 1) @ w_value.transpose(1, 2)  # [heads, texts, 64]
        context = context + torch.cat(shares).t()[..., None] * b_value[:, None]
        out: Tensor = self.output(context.transpose(0, 1).flatten(1))
        return out


class Block(nn.Module):
    """One transformer block: attention and feed-forward, each with residual, then LayerNorm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.expand = Linear(config.width, 4 * config.width)
        self.contract = Linear(4 * config.width, config.width)
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = config.dropout

    def forward(self, x: Tensor, batch: Batch | StaticBatch, read: Tensor | None = None) -> Tensor:
        """`[tokens, width]` to `[tokens, width]`, or to the rows `read` (rising) of that."""
        if read is None:
            return self._finish(self.attention(x, x, batch.groups), x)
        queries = batch.take(x, read)
        return self._finish(self.attention(queries, x, batch.query_groups(read)), queries)

    def first_tokens(self, x: Tensor, batch: Batch | StaticBatch) -> Tensor:
        """`forward` at the first token of each text, `[texts, width]`."""
        return self._finish(self.attention.first_tokens(x, batch), x[batch.first])

    def mean_attended(self, x: Tensor, batch: Batch | StaticBatch) -> Tensor:
        """The mean over each text's tokens behind the attention, then the feed-forward, `[texts, width]`."""
        attended = self._add(self.attention(x, x, batch.groups), x)
        return self._feed_forward(mean_of_texts(attended, batch))

    def _finish(self, attended: Tensor, residual: Tensor) -> Tensor:
        return self._feed_forward(self._add(attended, residual))

    def _add(self, attended: Tensor, residual: Tensor) -> Tensor:
        probability = self.dropout if self.training else 0.0
        return dropout_add_norm(attended, residual, self.attention_norm, probability)

    def _feed_forward(self, x: Tensor) -> Tensor:
        out = self.contract(gelu(self.expand(x)))
        return dropout_add_norm(out, x, self.feed_forward_norm, self.dropout if self.training else 0.0)


class Encoder(nn.Module):
    """Embeddings, the optional convolutional front end, and the transformer blocks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        front = config.convolution
        self.convolution = ConvolutionalFrontEnd(front) if front else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(self, batch: Batch | StaticBatch, read: Tensor | None = None) -> Tensor:
        """Hidden state of every token, `[tokens, width]`, or of the tokens `read` (rising)."""
        out: Tensor = self.blocks[-1](self._below_last(batch), batch, read)
        return out

    def pooled(self, batch: Batch | StaticBatch) -> Tensor:
        """What a classifier reads of each text (`ModelConfig.pooling`), `[texts, width]`.

        That is the hidden state of [CLS] as `forward` has it, or a mean over all tokens, [CLS] and [SEP]
        included.
        """
        last = self.blocks[-1]
        assert isinstance(last, Block)
        x = self._below_last(batch)
        if self.config.pooling == "first":
            return last.first_tokens(x, batch)
        if self.config.pooling == "attended":
            return last.mean_attended(x, batch)
        return mean_of_texts(last(x, batch), batch)

    def _below_last(self, batch: Batch | StaticBatch) -> Tensor:
        """What enters the last block, `[tokens, width]`."""
        x = self.embed(batch)
        for block in self.blocks[:-1]:
            x = block(x, batch)
        return x

    def embed(self, batch: Batch | StaticBatch) -> Tensor:
        """What enters the first block, `[tokens, width]`."""
        if self.convolution is None:
            out: Tensor = self.embeddings(batch.ids, batch.positions)
            return out
        # In training the image has max_tokens rows whatever the texts' lengths, since padding
        # takes part in the statistics of BatchNorm.
        height = self.config.max_tokens if self.training else self.config.image_height(batch.longest)
        ids = batch.padded_ids(height)
        positions = torch.arange(height, device=ids.device).repeat(len(batch))
        image = self.embeddings(ids.flatten(), positions).unflatten(0, ids.shape)
        return batch.unpadded(self.convolution(image, batch.longest))


def mean_of_texts(x: Tensor, batch: Batch | StaticBatch) -> Tensor:
    """Mean of the rows of each text, `[tokens, width]` to `[texts, width]`."""
    groups: Groups = batch.groups
    means = []
    for group in groups:
        padded, mask = group.keys.pad(x).float(), group.keys.mask(x.device)
        if mask is None:
            means.append(padded.mean(1))
        else:
            real = mask[..., None].float()
            means.append((padded * real).sum(1) / real.sum(1))
    return torch.cat(means).to(x.dtype)


def initialise(module: nn.Module, std: float) -> None:
    """BERT's initialisation: normal weights, zero biases, LayerNorm and BatchNorm at identity.

    Convolutions keep PyTorch's own default, which the paper does not override.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=std)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=std)
            if part.padding_idx is not None:
                nn.init.zeros_(part.weight[part.padding_idx].detach())
        elif isinstance(part, Embeddings):
            nn.init.normal_(part.segment, std=std)
