"""The two models that are trained: masked language model and sequence classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from tinylm.model.config import LAYER_NORM_EPS, ModelConfig
from tinylm.model.encoder import Encoder, initialise
from tinylm.ops.autograd import cross_entropy, dropout, gelu
from tinylm.ops.fixed import StaticBatch
from tinylm.ops.linear import ROWS, linear
from tinylm.ops.packed import Batch


@dataclass(frozen=True)
class Candidates:
    """The sampled vocabulary over which the masked tokens of a step are predicted.

    Attributes:
        ids: `int64 [candidates]`, rising.
        log_chance: `float32 [candidates]`, log of the probability that each is a candidate in a step.
            It is subtracted from the logits, so that the sum over the sample estimates that over
            the whole vocabulary.
    """

    ids: Tensor
    log_chance: Tensor


class MaskedLanguageModel(nn.Module):
    """Encoder with BERT's MLM head: transform, then a decoder tied to the word embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.transform = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialise(self, config.init_std)

    def forward(
        self,
        batch: Batch | StaticBatch,
        masked_positions: Tensor,
        targets: Tensor | None = None,
        candidates: Candidates | None = None,
    ) -> Tensor:
        """Vocabulary logits, `[masked, vocab]`, or with `targets` their mean cross-entropy.

        Only the masked positions pass through the last block and the vocabulary
        projection: the others carry no loss, and the projection alone would cost
        more than a transformer block.

        Args:
            batch: texts after masking.
            masked_positions: `int64 [masked]`, rising: rows of the packed tokens.
            targets: `int64 [masked]`, the tokens to predict; with `candidates`, indices of
                `candidates.ids`.
            candidates: a sampled vocabulary, over which the cross-entropy is then taken.
        """
        read = self.encoder(batch, masked_positions)
        x = self.norm(gelu(linear(read, self.transform.weight, self.transform.bias)))
        word = self.encoder.embeddings.word
        if targets is None:
            return F.linear(x, word.weight, self.bias)
        if candidates is None:
            return cross_entropy(linear(x, word.weight), self.bias, targets)
        # Filled up to one of few shapes, with tokens that have no chance.
        more = -len(candidates.ids) % ROWS
        bias = F.pad(self.bias[candidates.ids].float() - candidates.log_chance, (0, more), value=-math.inf)
        return cross_entropy(linear(x, F.pad(word(candidates.ids), (0, 0, 0, more))), bias, targets)


class SequenceClassifier(nn.Module):
    """Encoder with a tanh pooler on [CLS] or a mean, dropout and a linear layer to the labels."""

    def __init__(self, config: ModelConfig, n_labels: int) -> None:
        super().__init__()
        self.config = config
        self.n_labels = n_labels
        self.encoder = Encoder(config)
        self.pooler = nn.Linear(config.width, config.width)
        self.classifier = nn.Linear(config.width, n_labels)
        initialise(self, config.init_std)

    @property
    def output_weights(self) -> tuple[Tensor, Tensor]:
        """Weights that the logits are proportional to."""
        return self.classifier.weight, self.classifier.bias

    def forward(self, batch: Batch | StaticBatch) -> Tensor:
        """Logits, `[texts, labels]`, in the batch's order of texts."""
        batch = batch.to(self.classifier.weight.device)
        pooled = torch.tanh(self.pooler(self.encoder.pooled(batch)))
        if self.training:
            pooled = dropout(pooled, self.config.dropout)
        out: Tensor = self.classifier(pooled)
        return out
