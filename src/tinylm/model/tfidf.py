"""The TF-IDF member of a committee: logistic regression on which tokens a text holds, and how often.

It reads the same tokens as the encoders of its committee. On few texts it is hard to beat, it makes
other mistakes than an encoder does, and it costs next to nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinylm.model.config import TfidfConfig
from tinylm.ops.packed import Batch


class TfidfClassifier(nn.Module):
    """A linear layer on the TF-IDF of a text's tokens.

    A token that occurs c times counts (1 + log c) times its idf; the counts of a text are divided by
    their Euclidean length, as scikit-learn's `TfidfVectorizer(sublinear_tf=True)` does.
    """

    idf: Tensor

    def __init__(self, config: TfidfConfig, n_labels: int) -> None:
        super().__init__()
        self.config = config
        self.n_labels = n_labels
        self.register_buffer("idf", torch.zeros(config.vocab_size))
        self.token_weights = nn.Embedding(config.vocab_size, n_labels)
        self.bias = nn.Parameter(torch.zeros(n_labels))

    @property
    def output_weights(self) -> tuple[Tensor, Tensor]:
        """Weights that the logits are proportional to."""
        return self.token_weights.weight, self.bias

    def forward(self, batch: Batch) -> Tensor:
        """Logits, `[texts, labels]`, in the batch's order of texts."""
        vocab = self.config.vocab_size
        pairs, counts = torch.unique(batch.text_of_token * vocab + batch.ids, return_counts=True)
        text, token = pairs // vocab, pairs % vocab
        strength = (1 + counts.log()) * self.idf[token]
        texts = len(batch)
        length = strength.new_zeros(texts).index_add(0, text, strength**2).sqrt().clamp_min(1e-12)
        shares = strength[:, None] * self.token_weights.weight[token]
        logits = shares.new_zeros(texts, self.n_labels).index_add(0, text, shares)
        return logits / length[:, None] + self.bias
