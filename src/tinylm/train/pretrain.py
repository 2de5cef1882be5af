"""Pre-training by masked language modelling."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tinylm.errors import UserError
from tinylm.model.config import ModelConfig, check_vocabulary
from tinylm.model.heads import MaskedLanguageModel
from tinylm.ops.device import CPU
from tinylm.ops.packed import make_batch
from tinylm.text.coverage import token_counts
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.checkpoint import Checkpoint
from tinylm.train.cooccurrence import start_from, token_vectors
from tinylm.train.loop import Run, train
from tinylm.train.masking import (
    CANDIDATES,
    MASKS,
    CandidateSampling,
    Inputs,
    Masking,
    StaticInputs,
    epoch_batches,
    generator,
)
from tinylm.train.recipes import Recipe
from tinylm.train.together import Together


def pretrain(
    paragraphs: TokenIds,
    tokenizer: Tokenizer,
    config: ModelConfig,
    recipe: Recipe,
    *,
    seed: int,
    label: str = "pre-training",
    checkpoint: Checkpoint | None = None,
    stop: Callable[[], bool] | None = None,
    vectors: np.ndarray | None = None,
    start: MaskedLanguageModel | None = None,
    device: torch.device = CPU,
    together: Together | None = None,
) -> tuple[MaskedLanguageModel, list[dict[str, float]]]:
    """Pre-train a BERT-n from random weights on W_S (section 2 of the paper).

    Args:
        paragraphs: W_S, in ids of `tokenizer`; longer ones are cut to
            `config.max_tokens`.
        config: the architecture, with the vocabulary size of `tokenizer`.
        recipe: its `pretrain` phase and mask rate.
        seed: determines weights, order, masks and dropout.
        label: shown beside the progress bar.
        checkpoint: see `Run`.
        stop: see `train`.
        vectors: what `token_vectors` gives, at least as wide as the model, for a recipe that
            starts from them; computed here when None.
        start: a pre-trained model of the same architecture, which is trained further in place; None
            starts from new weights.
        device: see `Run`.
        together: the processes that each take a part of every batch, see `together.py`; None for one.

    Returns:
        The model, and for each epoch its mean loss.
    """
    model, run = pretraining_run(
        paragraphs,
        tokenizer,
        config,
        recipe,
        seed=seed,
        checkpoint=checkpoint,
        vectors=vectors,
        start=start,
        device=device,
        together=together,
    )
    history = train(run, label, stop=stop)
    return model.to(CPU), history


def pretraining_run(
    paragraphs: TokenIds,
    tokenizer: Tokenizer,
    config: ModelConfig,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Checkpoint | None = None,
    vectors: np.ndarray | None = None,
    start: MaskedLanguageModel | None = None,
    device: torch.device = CPU,
    together: Together | None = None,
) -> tuple[MaskedLanguageModel, Run]:
    """What `pretrain` trains, before its first step; arguments as there.

    Raises:
        UserError: several processes cannot train this model, or not on this device.
    """
    if together is not None and (device != CPU or config.convolution is not None):
        raise UserError(
            "several processes pre-train on the `device` cpu only, and no model with a `convolution`, whose"
            " BatchNorm needs the whole batch; expected one process."
        )
    model = start or new_model(paragraphs, tokenizer, config, recipe, seed=seed, vectors=vectors)
    masking = Masking(tokenizer, recipe.mask_rate)
    sampling = None
    if recipe.sampled_tokens is not None and device == CPU:
        frequencies = _frequencies(paragraphs, tokenizer)
        sampling = CandidateSampling(frequencies, tokenizer.special_ids, recipe.sampled_tokens)
    batch_size = recipe.pretrain.batch_size
    steps_per_epoch = -(-len(paragraphs) // batch_size)

    @lru_cache(maxsize=1)
    def batches(epoch: int) -> list[np.ndarray]:
        return epoch_batches(len(paragraphs), batch_size, seed, epoch)

    def inputs_of(epoch: int, step: int) -> Inputs:
        batch, _ = make_batch(paragraphs, batches(epoch)[step], config.max_tokens)
        number = epoch * steps_per_epoch + step
        masked = masking.draw(batch.ids, generator(seed, MASKS, number))
        targets, candidates = masked.targets, None
        if sampling is not None and len(targets):
            candidates, targets = sampling.draw(targets, generator(seed, CANDIDATES, number))
        inputs = Inputs(batch.with_ids(masked.ids), targets, masked.positions, candidates)
        # Masks and candidates are drawn for the whole batch, so they do not depend on the processes.
        return inputs.part(together.rank, together.size) if together else inputs

    def loss_of(inputs: Inputs | StaticInputs) -> Tensor:
        assert inputs.masked_positions is not None
        if not len(inputs.masked_positions):  # so few tokens that none was masked: nothing to learn
            return model.bias.sum() * 0
        candidates = inputs.candidates if isinstance(inputs, Inputs) else None
        out: Tensor = model(inputs.batch, inputs.masked_positions, inputs.targets, candidates)
        return out

    run = Run(model, recipe.pretrain, steps_per_epoch, inputs_of, loss_of, seed, checkpoint, device, together)
    return model, run


def new_model(
    paragraphs: TokenIds,
    tokenizer: Tokenizer,
    config: ModelConfig,
    recipe: Recipe,
    *,
    seed: int,
    vectors: np.ndarray | None = None,
) -> MaskedLanguageModel:
    """The weights that `pretrain` starts from, fp32; arguments as there."""
    if not len(paragraphs):
        raise UserError("W_S has no paragraphs; pre-training needs at least 1.")
    check_vocabulary(config, tokenizer)
    torch.manual_seed(seed)
    model = MaskedLanguageModel(config.model_copy(update={"dropout": recipe.pretrain.dropout}))
    if recipe.frequency_bias:
        model.bias.data = torch.from_numpy(np.log(_frequencies(paragraphs, tokenizer))).float()
    if recipe.neighbour_window is not None:
        if vectors is None:
            vectors = token_vectors(paragraphs, tokenizer, config.width, recipe.neighbour_window)
        start_from(model.encoder.embeddings.word.weight, vectors, seed)
    return model


def _frequencies(paragraphs: TokenIds, tokenizer: Tokenizer) -> np.ndarray:
    """Frequency of each token among those that can be masked, `float64 [vocab]`.

    One half is added to every count. Special tokens are never masked; their own count is 0.
    """
    counts = token_counts(paragraphs, len(tokenizer)).astype(np.float64)
    counts[tokenizer.special_ids] = 0
    counts += 0.5
    return counts / counts.sum()
