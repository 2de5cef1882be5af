"""Which texts form a batch, which of their tokens are masked, and what a step learns from.

All randomness of training is a function of (seed, purpose, number): the order of
an epoch, the masks, candidates and dropout of a step. No state of a random number
generator needs to be stored: a killed run resumes at any step and ends with the
same weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinylm.model.heads import Candidates
from tinylm.ops.autograd import IGNORED
from tinylm.ops.fixed import Shape, StaticBatch, pad_to, static_batch
from tinylm.ops.packed import Batch
from tinylm.text.tokenizer import Tokenizer

ORDER, MASKS, DROPOUT, CANDIDATES, BAGS = range(5)  # purposes of random numbers


def generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Random numbers that depend on nothing but the three arguments."""
    return np.random.default_rng([seed, purpose, number])


def seed_dropout(seed: int, step: int, rank: int = 0) -> None:
    """Seed PyTorch's generator, which dropout draws from, for one step of the process `rank`."""
    random = np.random.default_rng([seed, DROPOUT, step, rank]) if rank else generator(seed, DROPOUT, step)
    torch.manual_seed(int(random.integers(2**63)))


def epoch_batches(n_texts: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """All rows in a new order each epoch, cut into batches; the last may be smaller."""
    order = generator(seed, ORDER, epoch).permutation(n_texts)
    return [order[i : i + batch_size] for i in range(0, n_texts, batch_size)]


@dataclass(frozen=True)
class Masked:
    """Masked tokens of a batch.

    Attributes:
        ids: `int64 [tokens]`, the batch's ids after masking.
        positions: `int64 [masked]`, rising: the packed tokens that carry the loss.
        targets: `int64 [masked]`, the tokens that were there.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor


class Masking:
    """Draws the masked tokens of masked language modelling (appendix, "Optimization").

    Each token that is not special is chosen with probability `rate`; of the chosen,
    80 % become [MASK], 10 % a random token, 10 % stay.
    """

    def __init__(self, tokenizer: Tokenizer, rate: float) -> None:
        self.rate = rate
        self.mask_id = tokenizer.mask_id
        self.vocab_size = len(tokenizer)
        self.special = np.zeros(len(tokenizer), bool)
        self.special[tokenizer.special_ids] = True

    def draw(self, ids: Tensor, random: np.random.Generator) -> Masked:
        """Mask tokens of `ids` (`int64 [tokens]`)."""
        tokens = ids.numpy()
        chosen = (random.random(len(tokens)) < self.rate) & ~self.special[tokens]
        positions = np.flatnonzero(chosen)
        kind = random.random(len(positions))
        masked = tokens.copy()
        masked[positions[kind < 0.8]] = self.mask_id
        swapped = positions[(kind >= 0.8) & (kind < 0.9)]
        masked[swapped] = random.integers(0, self.vocab_size, len(swapped))
        return Masked(*map(torch.from_numpy, (masked, positions, tokens[positions])))


class CandidateSampling:
    """Draws the sampled vocabulary of a step: sampled softmax (Jean et al. 2015).

    In a tiny model nearly all the work is the projection onto the vocabulary. Over a sampled
    vocabulary it costs a fraction, and the model learns about as much from a text.

    Candidates are the masked tokens of the step and `count` uniform draws from all tokens that
    can be masked.

    Args:
        frequencies: `float64 [vocab]`, of each token among those that can be masked.
        special: `int64`, tokens that are never masked.
        count: number of draws.
    """

    def __init__(self, frequencies: np.ndarray, special: np.ndarray, count: int) -> None:
        self.count = count
        self.drawn = np.setdiff1d(np.arange(len(frequencies)), special)
        # The chance that one masked token is another one, and that one draw takes another one.
        self.not_masked = 1 - frequencies
        self.not_drawn = 1 - 1 / max(len(self.drawn), 1)

    def draw(self, targets: Tensor, random: np.random.Generator) -> tuple[Candidates, Tensor]:
        """Candidates for the masked tokens `targets` (`int64 [masked]`), and the index of each among them."""
        drawn = random.choice(self.drawn, self.count)
        ids, indices = np.unique(np.concatenate([targets.numpy(), drawn]), return_inverse=True)
        absent = self.not_masked[ids] ** len(targets) * self.not_drawn**self.count
        log_chance = np.log(1 - absent).astype(np.float32)
        candidates = Candidates(torch.from_numpy(ids), torch.from_numpy(log_chance))
        return candidates, torch.from_numpy(indices[: len(targets)].copy())


@dataclass(frozen=True)
class Inputs:
    """What one step learns from.

    Attributes:
        batch: texts.
        targets: `int64 [masked]`, the tokens that were at `masked_positions`; without these, the label of
            each text or whatever else the loss compares its logits with.
        masked_positions: `int64 [masked]`, rising: the masked tokens of masked language modelling.
        candidates: the sampled vocabulary, which `targets` are then indices of.
        weight: share of the step's masked tokens, see `part`.
    """

    batch: Batch
    targets: Tensor
    masked_positions: Tensor | None = None
    candidates: Candidates | None = None
    weight: float = 1.0

    def part(self, rank: int, size: int) -> Inputs:
        """What the process `rank` of `size` learns from: every `size`-th text, so that all get long ones.

        The losses of all parts, times their weights, add up to that of the whole.
        """
        assert self.masked_positions is not None
        mine = self.batch.text_of_token % size == rank
        kept = mine[self.masked_positions]
        place = mine.cumsum(0) - 1  # of each token among those of this part
        return Inputs(
            Batch(self.batch.ids[mine], self.batch.lengths[rank::size]),
            self.targets[kept],
            place[self.masked_positions[kept]],
            self.candidates,
            float(kept.double().mean()) if len(kept) else 0.0,
        )

    def static(self, max_tokens: int) -> StaticInputs:
        """The same in fixed shapes."""
        batch = static_batch(self.batch, max_tokens, self.masked_positions)
        if self.masked_positions is None:
            return StaticInputs(batch, self.targets)
        targets = pad_to(self.targets, batch.shape.masked, IGNORED)
        return StaticInputs(batch, targets, batch.masked_positions)


@dataclass(frozen=True)
class StaticInputs:
    """`Inputs` with a batch of fixed shape."""

    batch: StaticBatch
    targets: Tensor
    masked_positions: Tensor | None = None

    @property
    def shape(self) -> Shape:
        """Equal for inputs that one recording serves."""
        return self.batch.shape

    def to(self, device: torch.device) -> StaticInputs:
        """The same on a device."""
        batch = self.batch.to(device)
        positions = None if self.masked_positions is None else batch.masked_positions
        return StaticInputs(batch, self.targets.to(device), positions)

    def pinned(self) -> StaticInputs:
        """The same in memory from which a GPU copies while Python goes on."""
        batch = StaticBatch(self.batch.shape, self.batch.numbers.pin_memory())
        positions = None if self.masked_positions is None else batch.masked_positions
        return StaticInputs(batch, self.targets.pin_memory(), positions)

    def copy_(self, other: StaticInputs) -> None:
        """Take the values of inputs of the same shape; pinned ones without waiting for the copy."""
        self.batch.numbers.copy_(other.batch.numbers, non_blocking=True)
        self.targets.copy_(other.targets, non_blocking=True)
