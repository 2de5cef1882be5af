"""The shallowest member of a committee: no block, only which tokens a text holds and how often.

Logistic regression on TF-IDF, over the tokens that the encoders of its committee read. On few
texts it is hard to beat, it errs elsewhere than an encoder does, and it costs next to nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tinylm.ops.packed import Batch


class TfidfConfig(BaseModel):
    """What a linear member reads.

    Attributes:
        vocab_size: tokens of the vocabulary.
        max_tokens: texts are cut there, [CLS] and [SEP] included, though neither counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(ge=1)
    max_tokens: int = Field(default=128, ge=3)

    @property
    def name(self) -> str:
        """How reports call it."""
        return "linear, TF-IDF of tokens"


class TfidfClassifier(nn.Module):
    """A linear layer on the TF-IDF of a text's tokens.

    A token that occurs c times counts (1 + log c) times its weight of rarity; the counts of a
    text are divided by their Euclidean length, as scikit-learn's `TfidfVectorizer(sublinear_tf=True)`
    does.
    """

    rarity: Tensor

    def __init__(self, config: TfidfConfig, n_labels: int) -> None:
        super().__init__()
        self.config = config
        self.n_labels = n_labels
        self.register_buffer("rarity", torch.zeros(config.vocab_size))
        self.votes = nn.Embedding(config.vocab_size, n_labels)
        self.bias = nn.Parameter(torch.zeros(n_labels))

    @property
    def output_weights(self) -> tuple[Tensor, Tensor]:
        """Weights that the logits are proportional to."""
        return self.votes.weight, self.bias

    @property
    def is_single_threaded(self) -> bool:
        """It works for too short a time to be shared out."""
        return True

    def forward(self, batch: Batch) -> Tensor:
        """Raw output fields (logits), `[texts, labels]`, in the batch's order of texts."""
        vocab = self.config.vocab_size
        pairs, counts = torch.unique(batch.text_of_token * vocab + batch.ids, return_counts=True)
        text, token = pairs // vocab, pairs % vocab
        strength = (1 + counts.log()) * self.rarity[token]
        texts = len(batch)
        length = strength.new_zeros(texts).index_add(0, text, strength**2).sqrt().clamp_min(1e-12)
        votes = strength[:, None] * self.votes.weight[token]
        field = votes.new_zeros(texts, self.n_labels).index_add(0, text, votes)
        return field / length[:, None] + self.bias

    def swing(self) -> np.ndarray:
        """The most that it can give to label b over label a, `float32 [a, b]`.

        Its input has no negative entry and a Euclidean length of 1, or of 0 for a text without
        any token.
        """
        weight, bias = self.votes.weight.detach().numpy().T, self.bias.detach().numpy()
        gains = [np.linalg.norm(np.maximum(weight - row, 0), axis=1) for row in weight]
        out: np.ndarray = np.stack(gains) + bias[None] - bias[:, None]
        return out
