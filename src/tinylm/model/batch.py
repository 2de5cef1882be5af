"""A batch of texts without padding.

Most of what a padded BERT computes is thrown away: with a mean length of 35
tokens, 93 of 128 positions are padding. So a batch is packed: the tokens of all
texts lie one after the other, every linear layer, LayerNorm and dropout sees
real tokens only, and the attention alone looks at texts one by one, in groups
of similar length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tinylm.text.store import TokenIds

# A text joins the group of the next longer one while at least this share of its
# padded row would be real tokens.
GROUP_FILL = 0.8


@dataclass(frozen=True)
class Group:
    """Consecutive texts of a batch that the attention pads to one length.

    Attributes:
        tokens: slice of the packed tokens that these texts fill.
        texts: number of texts.
        length: tokens of the longest of them.
        places: `int64 [tokens]`, place of each packed token in the padded
            `texts x length` grid; None when no text needs padding.
        mask: `bool [texts, length]`, True at real tokens; None as above.
    """

    tokens: slice
    texts: int
    length: int
    places: Tensor | None
    mask: Tensor | None

    def pad(self, x: Tensor) -> Tensor:
        """`[batch tokens, ...]` to `[texts, length, ...]`, zeros in the padding."""
        x = x[self.tokens]
        if self.places is not None:
            x = x.new_zeros(self.texts * self.length, *x.shape[1:]).index_copy(0, self.places, x)
        return x.unflatten(0, (self.texts, self.length))

    def unpad(self, x: Tensor) -> Tensor:
        """`[texts, length, ...]` back to `[tokens of the group, ...]`."""
        x = x.flatten(0, 1)
        return x if self.places is None else x.index_select(0, self.places)


@dataclass(frozen=True)
class Batch:
    """Packed texts, longest first.

    Attributes:
        ids: `int64 [tokens]`.
        lengths: tokens of each text, in falling order.
    """

    ids: Tensor
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def first(self) -> Tensor:
        """`int64 [texts]`: where each text begins, that is its [CLS]."""
        return torch.from_numpy(np.cumsum([0, *self.lengths[:-1]])).to(self.ids.device)

    @cached_property
    def text_of_token(self) -> Tensor:
        """`int64 [tokens]`: the text that each token belongs to."""
        lengths = torch.tensor(self.lengths, device=self.ids.device)
        return torch.repeat_interleave(torch.arange(len(self), device=self.ids.device), lengths)

    @cached_property
    def positions(self) -> Tensor:
        """`int64 [tokens]`: position of each token in its text."""
        return torch.arange(len(self.ids), device=self.ids.device) - self.first[self.text_of_token]

    @cached_property
    def groups(self) -> list[Group]:
        """The texts in groups of similar length, together all of the batch."""
        groups, row, token = [], 0, 0
        while row < len(self):
            length = self.lengths[row]
            end = row + 1
            while end < len(self) and self.lengths[end] >= GROUP_FILL * length:
                end += 1
            lengths = np.asarray(self.lengths[row:end])
            tokens = slice(token, token + int(lengths.sum()))
            places = mask = None
            if lengths[-1] < length:
                filled = np.arange(length) < lengths[:, None]
                places = torch.from_numpy(np.flatnonzero(filled)).to(self.ids.device)
                mask = torch.from_numpy(filled).to(self.ids.device)
            groups.append(Group(tokens, end - row, length, places, mask))
            row, token = end, tokens.stop
        return groups

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(self.ids.to(device), self.lengths)


def make_batch(
    paragraphs: TokenIds, rows: Sequence[int] | np.ndarray, max_tokens: int
) -> tuple[Batch, np.ndarray]:
    """Pack `rows` of `paragraphs`, longest first, each cut to `max_tokens` with its [SEP] kept.

    Returns:
        The batch and its rows in the order in which they lie in it (`int64 [texts]`),
        so that labels and logits can follow.
    """
    rows = np.asarray(rows, dtype=np.int64)
    lengths = paragraphs.offsets[rows + 1] - paragraphs.offsets[rows]
    rows = rows[np.argsort(-lengths, kind="stable")]
    taken = paragraphs.take(rows).cut(max_tokens)
    return Batch(torch.from_numpy(taken.ids.astype(np.int64)), tuple(taken.lengths.tolist())), rows
