"""A batch of texts without padding.

Most of what a padded BERT computes is thrown away: with a mean length of 35
tokens, 93 of 128 positions are padding. So a batch is packed: the tokens of all
texts lie one after the other, and linear layers, LayerNorm and dropout see only
real tokens. The attention alone works text by text; it pads texts within groups
of similar length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tinylm.ops import PAD_ID
from tinylm.text.store import TokenIds

# A text joins the group of longer ones while at least this share of its padded row
# would be real tokens. More groups would pad less, but many small products take longer.
GROUP_FILL = 0.5


@dataclass(frozen=True)
class Span:
    """Where some consecutive texts lie among packed rows.

    Attributes:
        starts: `int64 [texts]`, first row of each text.
        lengths: `int64 [texts]`, rows of each text; 0 is possible.
    """

    starts: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Rows of the longest text."""
        return int(self.lengths.max())

    @property
    def rows(self) -> slice:
        """All rows of these texts."""
        return slice(int(self.starts[0]), int(self.starts[-1] + self.lengths[-1]))

    @cached_property
    def _is_real(self) -> np.ndarray:
        return np.arange(self.longest) < self.lengths[:, None]

    @property
    def _is_full(self) -> bool:
        return bool(self.lengths.min() == self.longest)

    def mask(self, device: torch.device) -> Tensor | None:
        """`bool [texts, longest]`, True at real rows; None where no text is padded."""
        return None if self._is_full else torch.from_numpy(self._is_real).to(device)

    def pad(self, packed: Tensor) -> Tensor:
        """`[all rows, width]` to `[texts, longest, width]`, zeros in the padding."""
        x = packed[self.rows]
        if not self._is_full:
            cells = torch.from_numpy(np.flatnonzero(self._is_real)).to(x.device)
            x = x.new_zeros(self._is_real.size, x.shape[1]).index_copy(0, cells, x)
        return x.unflatten(0, (len(self), self.longest))

    def unpad(self, padded: Tensor) -> Tensor:
        """`[texts, longest, width]` to the packed rows of these texts."""
        x = padded.flatten(0, 1)
        if self._is_full:
            return x
        return x[torch.from_numpy(np.flatnonzero(self._is_real)).to(x.device)]


@dataclass(frozen=True)
class Group:
    """Texts of similar length that the attention pads to one length.

    Attributes:
        keys: their tokens in the batch.
        queries: the query positions, all tokens or only those whose result is read.
    """

    keys: Span
    queries: Span


@dataclass(frozen=True)
class Batch:
    """Packed texts, longest first.

    Attributes:
        ids: `int64 [tokens]`.
        lengths: `int64 [texts]`, tokens of each text, falling.
    """

    ids: Tensor
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return int(self.lengths[0])

    @cached_property
    def starts(self) -> np.ndarray:
        """`int64 [texts]`: where each text begins."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def first(self) -> Tensor:
        """`int64 [texts]`: the [CLS] of each text."""
        return torch.from_numpy(self.starts).to(self.ids.device)

    @cached_property
    def text_of_token(self) -> Tensor:
        """`int64 [tokens]`: the text that each token belongs to."""
        return torch.from_numpy(np.repeat(np.arange(len(self)), self.lengths)).to(self.ids.device)

    @cached_property
    def positions(self) -> Tensor:
        """`int64 [tokens]`: position of each token in its text."""
        return torch.arange(len(self.ids), device=self.ids.device) - self.first[self.text_of_token]

    @cached_property
    def _group_bounds(self) -> list[tuple[int, int]]:
        bounds, first = [], 0
        while first < len(self):
            fits = self.lengths[first:] >= GROUP_FILL * self.lengths[first]
            end = first + (len(fits) if fits.all() else int(fits.argmin()))
            bounds.append((first, end))
            first = end
        return bounds

    @cached_property
    def groups(self) -> list[Group]:
        """The texts in groups of similar length; every token is a query."""
        spans = [Span(self.starts[a:b], self.lengths[a:b]) for a, b in self._group_bounds]
        return [Group(span, span) for span in spans]

    def query_groups(self, positions: Tensor) -> list[Group]:
        """The same groups with the tokens `positions` (`int64`, rising) as the only queries."""
        bounds = np.searchsorted(positions.cpu().numpy(), np.append(self.starts, len(self.ids)))
        return [
            Group(group.keys, Span(bounds[a:b], np.diff(bounds[a : b + 1])))
            for group, (a, b) in zip(self.groups, self._group_bounds, strict=True)
        ]

    def take(self, x: Tensor, positions: Tensor) -> Tensor:
        """The rows `positions` (`int64`, rising) of `x [tokens, width]`."""
        return x[positions]

    def padded_ids(self, height: int) -> Tensor:
        """`int64 [texts, height]`: the tokens of each text, then padding."""
        cells = self.text_of_token * height + self.positions
        flat = self.ids.new_full((len(self) * height,), PAD_ID).index_copy(0, cells, self.ids)
        return flat.unflatten(0, (len(self), height))

    def unpadded(self, padded: Tensor) -> Tensor:
        """`[texts, longest, width]` to `[tokens, width]`."""
        return padded.flatten(0, 1)[self.text_of_token * self.longest + self.positions]

    def with_ids(self, ids: Tensor) -> Batch:
        """The same texts with other tokens at the same positions."""
        return Batch(ids, self.lengths)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; the batch itself if it is there already."""
        return self if self.ids.device == device else self.with_ids(self.ids.to(device))


def make_batch(
    paragraphs: TokenIds, rows: Sequence[int] | np.ndarray, max_tokens: int
) -> tuple[Batch, np.ndarray]:
    """Pack `rows` of `paragraphs`, longest first, each cut to `max_tokens` with its [SEP] kept.

    Returns:
        The batch and, for each of its texts, the row of `paragraphs` (`int64 [texts]`), to bring
        labels and logits into the same order.
    """
    rows = np.asarray(rows, dtype=np.int64)
    lengths = paragraphs.offsets[rows + 1] - paragraphs.offsets[rows]
    rows = rows[np.argsort(-lengths, kind="stable")]
    taken = paragraphs.take(rows).cut(max_tokens)
    return Batch(torch.from_numpy(taken.ids.astype(np.int64)), taken.lengths), rows
