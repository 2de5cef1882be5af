"""How much arithmetic a BERT-n needs, as this library computes it.

Only matrix products and convolutions count, with two operations, a multiplication and an
addition, for each product of two numbers. With width W, for a text of n tokens:

- a full block: 24 W^2 per token for its linear layers (8 in the attention, 16 in the
  feed-forward) and 4 n W per token for scores and weighted sums;
- the last block of masked language modelling: keys and values at every token (4 W^2),
  the rest only at the r masked tokens (20 W^2 + 4 n W each);
- the last block of a classifier: 24 W^2 at [CLS], W_k and W_v being applied there, and
  4 W per token and head for scores and weighted sums of the block's input; a full block where
  the classifier reads the mean;
- MLM head: 2 W^2 + 2 W V at the masked tokens only, V the size of the vocabulary;
- classifier: 2 W^2 + 2 W labels at [CLS];
- convolutions: every pixel of an image W wide. It has `max_tokens` rows in training; in
  prediction, only the rows that change a row which is read.

Training costs three times this: the backward pass forms two products, the gradients of
the input and of the weights, for each product of the forward pass.
"""

from __future__ import annotations

import numpy as np

from tinylm.model.config import Convolution, ModelConfig

TRAINING = 3  # times the arithmetic of inference
# What `training_work` adds to the arithmetic: convolutions run at a fraction of the speed of matrix
# products, and a step of the optimizers costs this much for every weight of the embedding.
CONVOLUTION_COST = 4
UPDATE_COST = 100


def masked_language_model(config: ModelConfig, lengths: np.ndarray, masked: np.ndarray) -> float:
    """Operations of one forward pass.

    Args:
        config: the architecture.
        lengths: `int [texts]`, real tokens of each text.
        masked: `int [texts]`, how many of them carry the loss.
    """
    w, tokens = config.width, lengths.sum()
    last = 4 * w**2 * tokens + 20 * w**2 * masked.sum() + 4 * w * (lengths * masked).sum()
    head = (2 * w**2 + 2 * w * config.vocab_size) * masked.sum()
    front = _trained_front_end(config) * len(lengths)
    return float(_blocks(config, lengths) + front + last + head)


def sequence_classifier(config: ModelConfig, lengths: np.ndarray, n_labels: int) -> float:
    """Operations of one forward pass in evaluation; `lengths` as above."""
    w, texts = config.width, len(lengths)
    if config.pooling == "mean":
        last = _block(config, lengths)
    elif config.pooling == "attended":
        last = 8 * w**2 * lengths.sum() + 4 * w * (lengths**2).sum() + 16 * w**2 * texts
    else:
        last = 24 * w**2 * texts + 4 * config.heads * w * lengths.sum()
    head = (2 * w**2 + 2 * w * n_labels) * texts
    front = front_end(config, int(lengths.max())) * texts
    return float(_blocks(config, lengths) + front + last + head)


def front_end(config: ModelConfig, longest: int) -> int:
    """Operations of the convolutions, if any, for one prediction among texts of up to `longest` tokens."""
    if config.convolution is None:
        return 0
    return _convolutions(config.convolution, config.width * config.image_height(longest))


def _blocks(config: ModelConfig, lengths: np.ndarray) -> int:
    """All blocks but the last."""
    return (config.layers - 1) * _block(config, lengths)


def _block(config: ModelConfig, lengths: np.ndarray) -> int:
    """One full block."""
    w = config.width
    return int(24 * w**2 * lengths.sum() + 4 * w * (lengths**2).sum())


def _trained_front_end(config: ModelConfig) -> int:
    """Operations of the convolutions, if any, on one text in training."""
    if config.convolution is None:
        return 0
    return _convolutions(config.convolution, config.width * config.max_tokens)


def _convolutions(front: Convolution, pixels: int) -> int:
    """Operations of all convolutions on an image."""
    products = sum(n_in * n_out * kernel[0] * kernel[1] for n_in, n_out, kernel in front.stages)
    return 2 * products * pixels


def training_work(
    config: ModelConfig, *, trained: float, evaluated: float = 0, masked: float = 0, steps: float = 0
) -> float:
    """Rough work of a training, in multiplications, to compare the time of trainings.

    Args:
        config: the architecture.
        trained: tokens that are trained on, each as often as it is seen.
        evaluated: tokens that are only passed forward.
        masked: masked tokens times the size of the vocabulary that each is predicted over.
        steps: of the optimizers.
    """
    w = config.width
    convolutions = CONVOLUTION_COST * _trained_front_end(config) / (2 * config.max_tokens)
    passes = TRAINING * trained + evaluated
    forward = passes * (12 * config.layers * w**2 + convolutions) + TRAINING * masked * w
    return forward + UPDATE_COST * steps * config.vocab_size * w
