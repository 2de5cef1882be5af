"""The interface that every member of a committee has, whatever its kind.

A kind of member is a configuration (`MemberConfig`), a PyTorch module to train it (`Member`) and the
nodes that it adds to the committee's graph. A new kind needs these three, an entry in `KINDS` of
`storage.py`, and one in `NODES` of `graph.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

if TYPE_CHECKING:  # PyTorch, which predictions do not need
    from torch import Tensor, nn

    from tinylm.ops.packed import Batch


@dataclass(frozen=True)
class Weight:
    """A weight as it is stored.

    Attributes:
        data: fp32, or int8 with `scale`.
        scale: `float32 [..., 1]`, one for each row of `data`, or None.
        place: file and first byte of `data`; None if it is only in memory.
    """

    data: np.ndarray
    scale: np.ndarray | None = None
    place: tuple[Path, int] | None = None

    @property
    def value(self) -> np.ndarray:
        """The weight in fp32."""
        return self.data if self.scale is None else self.data * self.scale

    def __reduce__(self) -> tuple[Any, ...]:
        # The process that unpickles it may not find the file, or find another one.
        return Weight, (np.array(self.data), self.scale)


Weights = Mapping[str, Weight]  # under HuggingFace's names


class MemberConfig(Protocol):
    """The part of a member's configuration that all kinds share.

    Attributes:
        is_encoder: whether it is a BERT-n.
    """

    is_encoder: ClassVar[bool]

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary."""

    @property
    def max_tokens(self) -> int:
        """Texts are cut to this many tokens, [CLS] and [SEP] included."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    def classifier_shapes(self, n_labels: int) -> dict[str, tuple[int, ...]]:
        """Shape of each weight of a classifier, under the name that it has on disk."""

    def to_huggingface(self) -> dict[str, Any]:
        """Its entries of `config.json`."""


class Member(Protocol):
    """A PyTorch module that gives a logit per label to each text of a batch."""

    training: bool
    n_labels: int

    @property
    def config(self) -> MemberConfig:
        """Its shape."""

    @property
    def output_weights(self) -> tuple[Tensor, Tensor]:
        """The weights that its logits are proportional to: dividing them cools the member."""

    def eval(self) -> Self:
        """Switch to evaluation: no dropout."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights that were trained."""

    def state_dict(self) -> dict[str, Tensor]:
        """The trained weights and the constants, such as idf."""

    def __call__(self, batch: Batch) -> Tensor:
        """Logits, `[texts, labels]`, in the batch's order of texts."""
