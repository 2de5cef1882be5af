"""A batch in few different shapes, for GPUs that record a step and repeat it.

A GPU finishes the pieces of a tiny model's step faster than Python can launch them. A CUDA graph
records the step once and repeats it with one call, but only for tensors of the same shape in the
same memory.

So the packed rows of a batch are padded to a multiple of ROWS and its masked tokens to a multiple
of MASKED. Everything that depends on the lengths of the texts is a tensor: which cell of the padded
texts each row goes to, and back. The last row and the last masked position are always padding.
Padding carries no loss, so all its gradients are zero.
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

# Rows, masked positions and the longest text are padded to multiples of these. Larger multiples
# need fewer graphs and more padding.
ROWS, MASKED, LONGEST = 128, 128, 32


class Shape(NamedTuple):
    """What a step is recorded for.

    Attributes:
        texts: of the batch.
        rows: packed tokens, padding included.
        longest: tokens that the attention pads each text to.
        masked: masked positions, padding included; 0 where no token is masked.
    """

    texts: int
    rows: int
    longest: int
    masked: int


@dataclass(frozen=True)
class StaticBatch:
    """A `Batch` in one tensor of a fixed size, so that one copy brings it to a device.

    Attributes:
        shape: of everything.
        numbers: `int64`, the parts that `_sizes` lists, one after the other.
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
    def masked_positions(self) -> Tensor:
        """`int64 [masked]`: the rows of the masked tokens."""
        return self._parts["masked_positions"]

    @cached_property
    def _tokens(self) -> StaticSpan:
        return StaticSpan(
            self.shape, *(self._parts[name] for name in ("cell_of_row", "row_of_cell", "real_row"))
        )

    @property
    def groups(self) -> list[StaticGroup]:
        """One group of all texts; every token is a query."""
        return [StaticGroup(self._tokens, self._tokens)]

    def query_groups(self, positions: Tensor) -> list[StaticGroup]:
        """The same with the masked positions `positions` as the only queries."""
        parts = (self._parts[name] for name in ("cell_of_masked", "masked_of_cell", "real_masked"))
        return [StaticGroup(self._tokens, StaticSpan(self.shape, *parts))]

    def take(self, x: Tensor, positions: Tensor) -> Tensor:
        """The rows of `x [rows, width]` at the masked positions `positions`."""
        return _Gather.apply(x, positions, self._parts["masked_of_row"], None)

    def padded_ids(self, height: int) -> Tensor:
        """`int64 [texts, height]`: the tokens of each text, then padding."""
        ids = self.ids[self._tokens.row_of_cell].unflatten(0, (len(self), self.longest))
        ids = ids.masked_fill(~self._tokens.mask(ids.device), PAD_ID)
        return F.pad(ids, (0, height - self.longest), value=PAD_ID)

    def unpadded(self, padded: Tensor) -> Tensor:
        """`[texts, longest, width]` to `[rows, width]`."""
        return self._tokens.unpad(padded)

    def to(self, device: torch.device) -> StaticBatch:
        """The same batch on a device; the batch itself if it is there already."""
        there = self.numbers.device == device
        return self if there else StaticBatch(self.shape, self.numbers.to(device))


@dataclass(frozen=True)
class StaticSpan:
    """A `Span` in fixed shapes: packed rows, and the cells of all texts padded to one length.

    Attributes:
        shape: of the batch.
        cell_of_row: `int64 [rows]`; any cell for a row of padding.
        row_of_cell: `int64 [texts * longest]`; the last row for a cell of padding.
        real: `int64 [rows]`, 0 for padding and 1 otherwise.
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
        """`[rows, width]` to `[texts, longest, width]`; cells of padding hold the last row."""
        padded = _Gather.apply(packed, self.row_of_cell, self.cell_of_row, self.real)
        return padded.unflatten(0, (len(self), self.shape.longest))

    def unpad(self, padded: Tensor) -> Tensor:
        """`[texts, longest, width]` to `[rows, width]`; rows of padding hold any cell."""
        return _Gather.apply(padded.flatten(0, 1), self.cell_of_row, self.row_of_cell, None)


class StaticGroup(NamedTuple):
    """A `Group` in fixed shapes; there is one, of all texts."""

    keys: StaticSpan
    queries: StaticSpan


class _Gather(Function):
    """Rows `there` of x. `back` is the inverse, so the backward pass gathers and need not sum.

    `real` (`[rows of x]`) sets the gradients of rows of padding to zero.
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


def static_batch(batch: Batch, max_tokens: int, masked_positions: Tensor | None = None) -> StaticBatch:
    """A packed batch in fixed shapes, with the rows of its masked tokens (`int64`, rising), if any."""
    tokens = len(batch.ids)
    longest = min(-(-batch.longest // LONGEST) * LONGEST, max_tokens)
    masked = 0 if masked_positions is None else padded_size(len(masked_positions), MASKED)
    shape = Shape(len(batch), padded_size(tokens, ROWS), longest, masked)
    cells = batch.text_of_token * longest + batch.positions
    parts = {
        "ids": batch.ids,
        "positions": batch.positions,
        "real_row": torch.ones_like(batch.ids),
        "cell_of_row": cells,
        "row_of_cell": _inverse(cells, shape.texts * longest, shape.rows - 1),
        "first": batch.first,
    }
    if masked_positions is not None:
        masked_cells = cells[masked_positions]
        parts |= {
            "masked_positions": pad_to(masked_positions, shape.masked, shape.rows - 1),
            "real_masked": torch.ones_like(masked_positions),
            "masked_of_row": _inverse(masked_positions, shape.rows, shape.masked - 1),
            "cell_of_masked": masked_cells,
            "masked_of_cell": _inverse(masked_cells, shape.texts * longest, shape.masked - 1),
        }
    sizes = _sizes(shape)
    return StaticBatch(shape, torch.cat([pad_to(parts[name], size, 0) for name, size in sizes.items()]))


def pad_to(values: Tensor, size: int, padding: int) -> Tensor:
    """`values` (`int64`) followed by `padding`, `int64 [size]`."""
    return F.pad(values, (0, size - len(values)), value=padding)


def padded_size(count: int, multiple: int) -> int:
    """The next larger multiple, never `count` itself: the last one is always padding."""
    return (count // multiple + 1) * multiple


def _sizes(shape: Shape) -> dict[str, int]:
    """The parts of `StaticBatch.numbers` in order, and the size of each."""
    texts, rows, longest, masked = shape
    sizes = dict.fromkeys(("ids", "positions", "real_row", "cell_of_row"), rows)
    sizes |= {"row_of_cell": texts * longest, "first": texts}
    if masked:
        sizes |= dict.fromkeys(("masked_positions", "real_masked", "cell_of_masked"), masked)
        sizes |= {"masked_of_row": rows, "masked_of_cell": texts * longest}
    return sizes


def _inverse(values: Tensor, size: int, padding: int) -> Tensor:
    """`int64 [size]`: the index of each number in `values`, `padding` where it is not among them."""
    return torch.full((size,), padding).index_copy(0, values, torch.arange(len(values)))
