"""What every member of a committee offers, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self

from torch import Tensor, nn

from tinylm.ops.packed import Batch


class MemberConfig(Protocol):
    """The part of a member's configuration that all kinds share."""

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary."""

    @property
    def max_tokens(self) -> int:
        """Texts are cut there, [CLS] and [SEP] included."""

    @property
    def name(self) -> str:
        """How reports call it."""


class Member(Protocol):
    """A model that gives a logit per label to each text of a batch."""

    training: bool
    n_labels: int

    @property
    def config(self) -> MemberConfig:
        """Its shape."""

    @property
    def is_single_threaded(self) -> bool:
        """Whether one text is computed on the calling thread alone."""

    def eval(self) -> Self:
        """Switch to evaluation: no dropout."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights that were trained."""

    def __call__(self, batch: Batch) -> Tensor:
        """Logits, `[texts, labels]`, in the batch's order of texts."""
