"""Which texts form a batch, and which of their tokens are hidden.

All randomness of training is a function of (seed, purpose, number): the order of
an epoch, the masks of a step, the dropout of a step. A run that is killed can
therefore go on at any step and end with the same weights, and no state of a
random number generator needs to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinylm.model.heads import Candidates
from tinylm.ops.autograd import IGNORED
from tinylm.ops.fixed import Shape, StaticBatch, fill, static_batch
from tinylm.ops.packed import Batch
from tinylm.text.tokenizer import Tokenizer

ORDER, MASKS, DROPOUT, CANDIDATES = range(4)  # purposes of random numbers


def generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Random numbers that depend on nothing but the three arguments."""
    return np.random.default_rng([seed, purpose, number])


def seed_dropout(seed: int, step: int) -> None:
    """Seed PyTorch's generator, which dropout draws from, for one step."""
    torch.manual_seed(int(generator(seed, DROPOUT, step).integers(2**63)))


def epoch_batches(n_texts: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """All rows in a new order each epoch, cut into batches; the last may be smaller."""
    order = generator(seed, ORDER, epoch).permutation(n_texts)
    return [order[i : i + batch_size] for i in range(0, n_texts, batch_size)]


@dataclass(frozen=True)
class Masked:
    """Hidden tokens of a batch.

    Attributes:
        ids: `int64 [tokens]`, the batch's ids with the hidden ones replaced.
        places: `int64 [hidden]`, which packed tokens carry the loss.
        targets: `int64 [hidden]`, what stood there.
    """

    ids: Tensor
    places: Tensor
    targets: Tensor


class Masking:
    """Draws what masked language modelling hides (appendix, "Optimization").

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
        """Hide tokens of `ids` (`int64 [tokens]`)."""
        tokens = ids.numpy()
        chosen = (random.random(len(tokens)) < self.rate) & ~self.special[tokens]
        places = np.flatnonzero(chosen)
        kind = random.random(len(places))
        hidden = tokens.copy()
        hidden[places[kind < 0.8]] = self.mask_id
        swapped = places[(kind >= 0.8) & (kind < 0.9)]
        hidden[swapped] = random.integers(0, self.vocab_size, len(swapped))
        return Masked(torch.from_numpy(hidden), torch.from_numpy(places), torch.from_numpy(tokens[places]))


class CandidateSampling:
    """Draws what the hidden tokens of a step are told from: sampled softmax (Jean et al. 2015).

    Of a tiny model the vocabulary projection is nearly all the work. Among the hidden tokens
    themselves and some others it costs a fraction, and what is learnt from a text is about the
    same. Candidates are the hidden tokens of the step and `count` draws from all tokens that can
    be hidden, each as likely as any other.

    Args:
        frequencies: `float64 [vocab]`, of each token among those that can be hidden.
        special: `int64`, tokens that are never hidden.
        count: of draws.
    """

    def __init__(self, frequencies: np.ndarray, special: np.ndarray, count: int) -> None:
        self.count = count
        self.drawn = np.setdiff1d(np.arange(len(frequencies)), special)
        # The chance of a token not to be what is hidden at one place, and not what one draw takes.
        self.not_hidden = 1 - frequencies
        self.not_drawn = 1 - 1 / max(len(self.drawn), 1)

    def draw(self, targets: Tensor, random: np.random.Generator) -> tuple[Candidates, Tensor]:
        """Candidates for the hidden tokens `targets` (`int64 [hidden]`), and their places among them."""
        drawn = random.choice(self.drawn, self.count)
        ids, places = np.unique(np.concatenate([targets.numpy(), drawn]), return_inverse=True)
        absent = self.not_hidden[ids] ** len(targets) * self.not_drawn**self.count
        log_chance = np.log(1 - absent).astype(np.float32)
        candidates = Candidates(torch.from_numpy(ids), torch.from_numpy(log_chance))
        return candidates, torch.from_numpy(places[: len(targets)].copy())


@dataclass(frozen=True)
class Inputs:
    """What one step learns from.

    Attributes:
        batch: texts.
        targets: `int64 [hidden]`, what stood at `places`; in fine-tuning, a label of each text or
            whatever else the loss compares its logits with.
        places: `int64 [hidden]`, rising: the hidden tokens; None in fine-tuning.
        candidates: with them, `targets` are places among these.
    """

    batch: Batch
    targets: Tensor
    places: Tensor | None = None
    candidates: Candidates | None = None

    def static(self, max_tokens: int) -> StaticInputs:
        """The same in fixed shapes."""
        batch = static_batch(self.batch, max_tokens, self.places)
        if self.places is None:
            return StaticInputs(batch, self.targets)
        return StaticInputs(batch, fill(self.targets, batch.shape.places, IGNORED), batch.places)


@dataclass(frozen=True)
class StaticInputs:
    """What `Inputs` is, with a batch of fixed shape."""

    batch: StaticBatch
    targets: Tensor
    places: Tensor | None = None

    @property
    def shape(self) -> Shape:
        """Equal for inputs that one recording serves."""
        return self.batch.shape

    def to(self, device: torch.device) -> StaticInputs:
        """The same on a device."""
        batch = self.batch.to(device)
        return StaticInputs(batch, self.targets.to(device), None if self.places is None else batch.places)

    def copy_(self, other: StaticInputs) -> None:
        """Take the values of inputs of the same shape."""
        self.batch.numbers.copy_(other.batch.numbers, non_blocking=True)
        self.targets.copy_(other.targets, non_blocking=True)
