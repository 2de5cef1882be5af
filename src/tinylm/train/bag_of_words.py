"""The second part of pre-training: from half of a text, the encoder tells which words the other half has.

Masked language modelling teaches what a token's neighbours say of it. What a classifier reads is one vector
of a whole text, of which nothing has been learned then, and with few labelled texts it stays so. So the
encoder now reads about half of a text's tokens, and its pooled vector predicts the bag of the others: which
tokens occur there and not in what was read. Those in every text are left out, and rarer ones, which say more
of what the text is about, weigh more. This needs no labels, no sentences and no language, just texts.
docs/recipe.md has what it brings ("Bags of words").
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

from tinylm.model.heads import MaskedLanguageModel, SequenceClassifier
from tinylm.ops.device import CPU
from tinylm.ops.packed import make_batch
from tinylm.text.coverage import texts_with_token
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.checkpoint import Checkpoint
from tinylm.train.loop import Run, train
from tinylm.train.masking import BAGS, Inputs, StaticInputs, epoch_batches, generator
from tinylm.train.recipes import Recipe

PREDICTED = 4_000  # tokens of the vocabulary, the most frequent ones
MOST_TEXTS = 0.1  # of those that occur in at most this share of the texts, if there are any
PIECE = 16  # tokens of a text that are read or hidden together, at most


class Bags:
    """Hides half of each text, and says which tokens occur in that half alone.

    Args:
        paragraphs: all texts, which say how frequent a token is.
        tokenizer: of their ids.

    Attributes:
        tokens: `int64 [predicted]`, the tokens that bags are made of, most frequent first.
        weights: `float32 [predicted]`, the logarithm of how many texts there are for one with the token.
    """

    def __init__(self, paragraphs: TokenIds, tokenizer: Tokenizer) -> None:
        texts = texts_with_token(paragraphs, len(tokenizer))
        texts[tokenizer.special_ids] = 0
        if (rare := texts <= MOST_TEXTS * len(paragraphs))[texts > 0].any():
            texts[~rare] = 0
        self.tokens = np.argsort(-texts, kind="stable")[: min(PREDICTED, np.count_nonzero(texts))]
        self.weights = np.log(len(paragraphs) / texts[self.tokens]).astype(np.float32)
        self._column = np.full(len(tokenizer), len(self.tokens))  # a further column for all others
        self._column[self.tokens] = np.arange(len(self.tokens))

    def draw(self, texts: TokenIds, random: np.random.Generator) -> tuple[TokenIds, np.ndarray]:
        """What is read of each text, [CLS] and [SEP] included, and the distribution to be predicted.

        Returns:
            The tokens that are read, and `float32 [texts, predicted]`: rows add up to 1, or are 0 where the
            hidden half has none of these tokens.
        """
        hidden, text = _hidden(texts.lengths, random), np.repeat(np.arange(len(texts)), texts.lengths)
        column = self._column[texts.ids]
        bags = np.zeros((len(texts), len(self.tokens) + 1), np.float32)
        bags[text[hidden], column[hidden]] = 1
        bags[text[~hidden], column[~hidden]] = 0
        bags = bags[:, :-1] * self.weights
        bags /= np.maximum(bags.sum(1, keepdims=True), np.finfo(np.float32).tiny)
        lengths = np.bincount(text[~hidden], minlength=len(texts))
        return TokenIds(texts.ids[~hidden], np.append(0, np.cumsum(lengths))), bags


def _hidden(lengths: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Which tokens of packed texts are hidden, `bool [tokens]`: pieces by chance, but neither none nor all.

    Pieces are of equal length, two at least; the first token of a text and its last belong to none.
    """
    inner = np.maximum(lengths - 2, 0)
    pieces = np.maximum(2, -(-inner // PIECE))
    first = np.cumsum(pieces) - pieces
    chosen = random.random(pieces.sum()) < 0.5
    one, other = first + random.integers(pieces), first + random.integers(pieces)
    other = np.where(one == other, first + (one - first + 1) % pieces, other)
    chosen[one], chosen[other] = True, False
    text = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(text)) - (np.cumsum(lengths) - lengths)[text] - 1
    piece = first[text] + place * pieces[text] // np.maximum(inner, 1)[text]
    return chosen[np.clip(piece, 0, len(chosen) - 1)] & (place >= 0) & (place < inner[text])


def predict_bags(
    paragraphs: TokenIds,
    tokenizer: Tokenizer,
    model: MaskedLanguageModel,
    recipe: Recipe,
    *,
    seed: int,
    label: str = "bags of words",
    checkpoint: Checkpoint | None = None,
    stop: Callable[[], bool] | None = None,
    device: torch.device = CPU,
) -> list[dict[str, float]]:
    """Train the encoder of a masked language model further, in place; its other weights stay.

    Args:
        paragraphs: W_S, in ids of `tokenizer`; longer ones are cut to the model's `max_tokens`.
        tokenizer: that of the model.
        model: pre-trained.
        recipe: its phase `bag_of_words`, and what its classifier reads, which is what predicts here.
        seed: determines what is hidden, new weights, order and dropout.
        label: shown beside the progress bar.
        checkpoint: see `Run`.
        stop: see `train`.
        device: see `Run`.

    Returns:
        For each epoch its mean loss.
    """
    reader, run = bag_of_words_run(
        paragraphs, tokenizer, model, recipe, seed=seed, checkpoint=checkpoint, device=device
    )
    history = train(run, label, stop=stop)
    model.encoder.load_state_dict(reader.to(CPU).encoder.state_dict())
    return history


def bag_of_words_run(
    paragraphs: TokenIds,
    tokenizer: Tokenizer,
    start: MaskedLanguageModel,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Checkpoint | None = None,
    device: torch.device = CPU,
) -> tuple[SequenceClassifier, Run]:
    """What `predict_bags` trains, before its first step; arguments as there."""
    phase = recipe.bag_of_words
    assert phase is not None
    config = start.config.model_copy(update={"dropout": phase.dropout, "pooling": recipe.pooling})
    bags = Bags(paragraphs, tokenizer)
    torch.manual_seed(seed)
    model = SequenceClassifier(config, len(bags.tokens))
    model.encoder.load_state_dict(start.encoder.state_dict())
    steps_per_epoch = -(-len(paragraphs) // phase.batch_size)

    @lru_cache(maxsize=1)
    def batches(epoch: int) -> list[np.ndarray]:
        return epoch_batches(len(paragraphs), phase.batch_size, seed, epoch)

    def inputs_of(epoch: int, step: int) -> Inputs:
        texts = paragraphs.take(batches(epoch)[step]).cut(config.max_tokens)
        read, targets = bags.draw(texts, generator(seed, BAGS, epoch * steps_per_epoch + step))
        batch, rows = make_batch(read, np.arange(len(read)), config.max_tokens)
        return Inputs(batch, torch.from_numpy(targets[rows]))

    def loss_of(inputs: Inputs | StaticInputs) -> Tensor:
        return F.cross_entropy(model(inputs.batch).float(), inputs.targets)

    return model, Run(model, phase, steps_per_epoch, inputs_of, loss_of, seed, checkpoint, device)
