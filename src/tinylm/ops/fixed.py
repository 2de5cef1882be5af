"""A batch whose tensors have few different shapes, for processors that record their work.

A GPU takes a step of a tiny model faster than Python can ask for it. A CUDA graph records
the step once and repeats it with one call, but only for tensors of the same shape in the same
memory. So here the packed rows of a batch are filled up to the next multiple of ROWS, the
hidden tokens to one of PLACES, and all that depends on the lengths of the texts is a tensor:
where each row lies among the padded texts and back. The last row and the last place are always
filling. They carry no loss, so that filling has gradients of zero throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor
from torch.autograd import Function

from tinylm.ops import PAD_ID
from tinylm.ops.packed import Batch

# Multiples that rows, places and the longest text are rounded up to: the larger, the fewer
# graphs, and the more filling.
ROWS, PLACES, LONGEST = 128, 128, 32


class Shape(NamedTuple):
    """What a step is recorded for.

    Attributes:
        texts: of the batch.
        rows: packed tokens with filling.
        longest: tokens that the attention pads each text to.
        places: hidden tokens with filling; 0 where none is.
    """

    texts: int
    rows: int
    longest: int
    places: int


@dataclass(frozen=True)
class StaticBatch:
    """What `Batch` is, in one tensor of a fixed size, so that one copy brings it to a device.

    Attributes:
        shape: of everything.
        numbers: `int64`, the parts that `_sizes` lists one behind the other.
    """

    shape: Shape
    numbers: Tensor

    def __len__(self) -> int:
        return self.shape.texts

    @property
    def longest(self) -> int:
        """Tokens that each text is padded to."""
        return self.shape.longest

    @cached_property
    def _parts(self) -> dict[str, Tensor]:
        sizes = _sizes(self.shape)
        return dict(zip(sizes, self.numbers.split(list(sizes.values())), strict=True))

    @property
    def ids(self) -> Tensor:
        """`int64 [rows]`."""
        return self._parts["ids"]

    @property
    def positions(self) -> Tensor:
        """`int64 [rows]`: position of each token in its text."""
        return self._parts["positions"]

    @property
    def first(self) -> Tensor:
        """`int64 [texts]`: the [CLS] of each text."""
        return self._parts["first"]

    @property
    def places(self) -> Tensor:
        """`int64 [places]`: the hidden tokens."""
        return self._parts["places"]

    @cached_property
    def _tokens(self) -> StaticSpan:
        return StaticSpan(
            self.shape, *(self._parts[name] for name in ("cell_of_row", "row_of_cell", "real_row"))
        )

    @property
    def groups(self) -> list[StaticGroup]:
        """All texts; every token asks."""
        return [StaticGroup(self._tokens, self._tokens)]

    def groups_asking(self, places: Tensor) -> list[StaticGroup]:
        """The same when only the hidden tokens `places` ask."""
        parts = (self._parts[name] for name in ("cell_of_place", "place_of_cell", "real_place"))
        return [StaticGroup(self._tokens, StaticSpan(self.shape, *parts))]

    def take(self, x: Tensor, places: Tensor) -> Tensor:
        """The rows of `x [rows, width]` at the hidden tokens `places`."""
        return _Gather.apply(x, places, self._parts["place_of_row"], None)

    def padded_ids(self, height: int) -> Tensor:
        """`int64 [texts, height]`: the tokens of each text, then padding."""
        ids = self.ids[self._tokens.row_of_cell].unflatten(0, (len(self), self.longest))
        ids = ids.masked_fill(~self._tokens.mask(ids.device), PAD_ID)
        return F.pad(ids, (0, height - self.longest), value=PAD_ID)

    def unpadded(self, padded: Tensor) -> Tensor:
        """`[texts, longest, width]` to `[rows, width]`."""
        return self._tokens.unpad(padded)

    def to(self, device: torch.device) -> StaticBatch:
        """The same batch on a device; itself where it is there."""
        there = self.numbers.device == device
        return self if there else StaticBatch(self.shape, self.numbers.to(device))


@dataclass(frozen=True)
class StaticSpan:
    """What `Span` is: packed rows, and the cells of all texts padded to one length.

    Attributes:
        shape: of the batch.
        cell_of_row: `int64 [rows]`; any, for filling.
        row_of_cell: `int64 [texts * longest]`; the last row, for padding.
        real: `int64 [rows]`, 0 for filling and else 1.
    """

    shape: Shape
    cell_of_row: Tensor
    row_of_cell: Tensor
    real: Tensor

    def __len__(self) -> int:
        return self.shape.texts

    def mask(self, device: torch.device) -> Tensor:
        """`bool [texts, longest]`, True at real rows."""
        filled = self.row_of_cell != len(self.cell_of_row) - 1
        return filled.unflatten(0, (len(self), self.shape.longest))

    def pad(self, packed: Tensor) -> Tensor:
        """`[rows, width]` to `[texts, longest, width]`; padding holds the last row."""
        padded = _Gather.apply(packed, self.row_of_cell, self.cell_of_row, self.real)
        return padded.unflatten(0, (len(self), self.shape.longest))

    def unpad(self, padded: Tensor) -> Tensor:
        """`[texts, longest, width]` to `[rows, width]`; filling holds any cell."""
        return _Gather.apply(padded.flatten(0, 1), self.cell_of_row, self.row_of_cell, None)


class StaticGroup(NamedTuple):
    """What `Group` is; there is one, of all texts."""

    keys: StaticSpan
    queries: StaticSpan


class _Gather(Function):
    """Rows `there` of x. As `back` is the way back, gradients need not be summed.

    `real` (`[rows of x]`) keeps gradients that are none of theirs away from rows of filling.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, real: Tensor | None) -> Tensor:
        ctx.save_for_backward(back, real)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        back, real = ctx.saved_tensors
        grad = gradients[0].index_select(0, back)
        return (grad if real is None else grad * real[:, None].to(grad.dtype)), None, None, None


def static_batch(batch: Batch, max_tokens: int, places: Tensor | None = None) -> StaticBatch:
    """A packed batch in fixed shapes; with `places` (`int64`, rising), those tokens are hidden."""
    tokens = len(batch.ids)
    longest = min(-(-batch.longest // LONGEST) * LONGEST, max_tokens)
    hidden = 0 if places is None else filled_up(len(places), PLACES)
    shape = Shape(len(batch), filled_up(tokens, ROWS), longest, hidden)
    cells = batch.text_of_token * longest + batch.positions
    parts = {
        "ids": batch.ids,
        "positions": batch.positions,
        "real_row": torch.ones_like(batch.ids),
        "cell_of_row": cells,
        "row_of_cell": _inverse(cells, shape.texts * longest, shape.rows - 1),
        "first": batch.first,
    }
    if places is not None:
        parts |= {
            "places": fill(places, shape.places, shape.rows - 1),
            "real_place": torch.ones_like(places),
            "place_of_row": _inverse(places, shape.rows, shape.places - 1),
            "cell_of_place": cells[places],
            "place_of_cell": _inverse(cells[places], shape.texts * longest, shape.places - 1),
        }
    sizes = _sizes(shape)
    return StaticBatch(shape, torch.cat([fill(parts[name], size, 0) for name, size in sizes.items()]))


def fill(values: Tensor, size: int, filling: int) -> Tensor:
    """`values` (`int64`) with as much `filling` behind them as `size` asks for."""
    return F.pad(values, (0, size - len(values)), value=filling)


def filled_up(count: int, multiple: int) -> int:
    """The next multiple that is larger, so that the last one is always filling."""
    return (count // multiple + 1) * multiple


def _sizes(shape: Shape) -> dict[str, int]:
    """Of the parts of `StaticBatch.numbers`."""
    texts, rows, longest, places = shape
    sizes = dict.fromkeys(("ids", "positions", "real_row", "cell_of_row"), rows)
    sizes |= {"row_of_cell": texts * longest, "first": texts}
    if places:
        sizes |= dict.fromkeys(("places", "real_place", "cell_of_place"), places)
        sizes |= {"place_of_row": rows, "place_of_cell": texts * longest}
    return sizes


def _inverse(values: Tensor, size: int, filling: int) -> Tensor:
    """`int64 [size]`: where each number stands among `values`, `filling` where it does not."""
    return torch.full((size,), filling).index_copy(0, values, torch.arange(len(values)))
