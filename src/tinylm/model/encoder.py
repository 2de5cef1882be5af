"""The encoder of BERT-n on packed batches.

Two things differ from a textbook BERT, neither of them in what is computed:

- hidden states are `[tokens, width]`, the texts of a batch one after the other
  (see `batch.py`); only the attention, and a convolutional front end, pad;
- a classifier reads nothing but [CLS] of the last block, so `first_tokens` forms
  one query per text there, no keys, no values, and one feed-forward per text.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from tinylm.model.batch import Batch, Group
from tinylm.model.config import HEAD_WIDTH, ModelConfig
from tinylm.model.convolution import ConvolutionalFrontEnd

LAYER_NORM_EPS = 1e-12
PAD_ID = 0  # every tokenizer here has [PAD] first, as bert-base-uncased has


class Embeddings(nn.Module):
    """Word plus position plus (constant) segment embedding, LayerNorm, dropout.

    The segment embedding is what HuggingFace calls token type 0. It is kept so
    that weights can be exchanged; no input has a second segment.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.width, padding_idx=PAD_ID)
        self.position = nn.Embedding(config.max_tokens, config.width)
        self.segment = nn.Parameter(torch.zeros(config.width))
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """`ids` and `positions` of one shape `[...]` to `[..., width]`."""
        x = self.word(ids) + self.position(positions) + self.segment
        out: Tensor = self.dropout(self.norm(x))
        return out


class Attention(nn.Module):
    """Multi-head self-attention with its output projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)
        self.dropout = config.dropout

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """`[tokens, width]` to `[tokens, width]`, every text by itself."""
        qkv = self.query_key_value(x)
        context = torch.cat([self._attend(qkv, group) for group in batch.groups])
        out: Tensor = self.output(context)
        return out

    def _attend(self, qkv: Tensor, group: Group) -> Tensor:
        split = group.pad(qkv).unflatten(2, (3, self.heads, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        query, key, value = split  # each [texts, heads, length, 64]
        mask = None if group.mask is None else group.mask[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        return group.unpad(context.transpose(1, 2).flatten(2))

    def first_tokens(self, x: Tensor, batch: Batch) -> Tensor:
        """What `forward` gives for the first token of each text, `[texts, width]`.

        With one query per text the keys need not be formed: q . (W_k x + b_k) is
        (W_k^T q) . x plus a constant that softmax ignores. Nor need the values:
        the attention-weighted sum of `x` is taken first and W_v applied after it.
        """
        width = self.heads * HEAD_WIDTH
        w_q, w_k, w_v = self.query_key_value.weight.split(width)
        b_q, _, b_v = self.query_key_value.bias.split(width)
        query = F.linear(x[batch.first], w_q, b_q).unflatten(1, (self.heads, HEAD_WIDTH))
        # [texts, heads, 64] x [heads, 64, width]: each head's query, seen from x.
        probe = torch.einsum("bhd,hdw->bhw", query, w_k.unflatten(0, (self.heads, HEAD_WIDTH)))
        probe = probe * HEAD_WIDTH**-0.5
        contexts, shares, row = [], [], 0
        for group in batch.groups:
            padded = group.pad(x)
            scores = probe[row : row + group.texts] @ padded.transpose(1, 2)  # [texts, heads, length]
            if group.mask is not None:
                scores = scores.masked_fill(~group.mask[:, None, :], float("-inf"))
            weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
            contexts.append(weights @ padded)
            shares.append(weights.sum(-1))  # 1, unless dropout took some: the share of b_v
            row += group.texts
        context, share = torch.cat(contexts), torch.cat(shares)
        value = torch.einsum("bhw,hdw->bhd", context, w_v.unflatten(0, (self.heads, HEAD_WIDTH)))
        value = value + share[..., None] * b_v.unflatten(0, (self.heads, HEAD_WIDTH))
        out: Tensor = self.output(value.flatten(1))
        return out


class Block(nn.Module):
    """One transformer block: attention and feed-forward, each with residual, then LayerNorm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.width, 4 * config.width), nn.GELU(), nn.Linear(4 * config.width, config.width)
        )
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, batch: Batch, first_only: bool = False) -> Tensor:
        """`[tokens, width]` to `[tokens, width]`, or to `[texts, width]` with `first_only`."""
        attend = self.attention.first_tokens if first_only else self.attention
        residual = x[batch.first] if first_only else x
        x = self.attention_norm(residual + self.dropout(attend(x, batch)))
        out: Tensor = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return out


class Encoder(nn.Module):
    """Embeddings, the optional convolutional front end, and the transformer blocks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.convolution = ConvolutionalFrontEnd(config.convolution) if config.convolution else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(self, batch: Batch) -> Tensor:
        """Hidden state of every token, `[tokens, width]`."""
        x = self._embed(batch)
        for block in self.blocks:
            x = block(x, batch)
        return x

    def first_tokens(self, batch: Batch) -> Tensor:
        """Hidden state of each text's [CLS], `[texts, width]`: `forward` at those rows."""
        x = self._embed(batch)
        for block in self.blocks[:-1]:
            x = block(x, batch)
        out: Tensor = self.blocks[-1](x, batch, first_only=True)
        return out

    def _embed(self, batch: Batch) -> Tensor:
        if self.convolution is None:
            out: Tensor = self.embeddings(batch.ids, batch.positions)
            return out
        # The image has max_tokens rows whatever the texts' lengths: padding takes part.
        places = batch.text_of_token * self.config.max_tokens + batch.positions
        ids = batch.ids.new_full((len(batch) * self.config.max_tokens,), PAD_ID)
        ids = ids.index_copy(0, places, batch.ids).unflatten(0, (len(batch), -1))
        positions = torch.arange(self.config.max_tokens, device=ids.device).expand_as(ids)
        image = self.convolution(self.embeddings(ids, positions))
        return image.flatten(0, 1).index_select(0, places)


def initialise(module: nn.Module, std: float) -> None:
    """BERT's initialisation: normal weights, zero biases, LayerNorm and BatchNorm at identity.

    Convolutions keep PyTorch's own default, which the paper does not override.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=std)
            if part.padding_idx is not None:
                nn.init.zeros_(part.weight[part.padding_idx].detach())
        elif isinstance(part, Embeddings):
            nn.init.normal_(part.segment, std=std)
