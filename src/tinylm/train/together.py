"""One training over several processes, as `torchrun` starts them.

Every process has the whole model and takes its share of each global batch. The gradients of the shares,
weighted by their masked tokens, are summed, so that a step is that of one process with the whole batch within
rounding; then all optimizers do the same. The first process alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tinylm.errors import UserError
from tinylm.system.progress import forward_progress

NONE, SPARSE, DENSE = range(3)  # forms of a gradient; where processes differ, the last is taken


@contextmanager
def joined_processes() -> Iterator[Together | None]:
    """The processes of this training; None where there is one, not started by `torchrun` or alone."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield None
        return
    dist.init_process_group("gloo")
    together = Together(dist.get_rank(), dist.get_world_size())
    if not together.first:
        forward_progress(lambda message: None)
    try:
        yield together
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Together:
    """A process among those that train one model.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
    """

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in one of them."""
        found = torch.tensor([flag], dtype=torch.uint8)
        _reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Let the first process finish the block before the others begin it."""
        if not self.first:
            self.any(False)
        try:
            yield
        finally:
            if self.first:
                self.any(False)

    def share_weights(self, model: nn.Module) -> None:
        """Give all the first one's weights: another processor may have rounded what they start from."""
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)

    def sum_gradients(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Sum the gradients of all, in place, and their losses.

        Args:
            model: on the CPU. A gradient that is sparse in all processes stays so, with the rows of all.
            loss: of this process's share.

        Returns:
            The sum of the losses.
        """
        parameters = list(model.parameters())
        forms = torch.tensor([_form(p.grad) for p in parameters])
        _reduce(forms, dist.ReduceOp.MAX)
        parts = [loss.detach().float().reshape(1)]
        for p, form in zip(parameters, forms.tolist(), strict=True):
            if form == SPARSE:
                p.grad = _with_rows_of_all(p)
                parts.append(p.grad.values().flatten())
            elif form == DENSE:
                if p.grad is None or p.grad.is_sparse:
                    p.grad = torch.zeros_like(p, dtype=p.grad_dtype) if p.grad is None else p.grad.to_dense()
                parts.append(p.grad.float().flatten())
        flat = torch.cat(parts)  # one sum, in fp32, instead of one for each tensor
        _reduce(flat, dist.ReduceOp.SUM)
        summed = iter(flat.split([len(part) for part in parts]))
        total = next(summed)[0]
        for p, form in zip(parameters, forms.tolist(), strict=True):
            if form != NONE:
                assert p.grad is not None
                values = p.grad.values() if form == SPARSE else p.grad
                values.copy_(next(summed).view_as(values))
        return total


def _form(grad: Tensor | None) -> int:
    if grad is None:
        return NONE
    return SPARSE if grad.is_sparse else DENSE


def _with_rows_of_all(p: nn.Parameter) -> Tensor:
    """The sparse gradient of a table with the rows that it has in any process."""
    read = torch.zeros(len(p), dtype=torch.uint8)
    mine = None if p.grad is None else p.grad.coalesce()
    if mine is not None:
        read[mine.indices()[0]] = 1
    _reduce(read, dist.ReduceOp.MAX)
    rows = read.nonzero()[:, 0]
    values = torch.zeros(len(rows), *p.shape[1:])
    if mine is not None:
        values[torch.searchsorted(rows, mine.indices()[0])] = mine.values()
    return torch.sparse_coo_tensor(rows[None], values, p.shape, check_invariants=False, is_coalesced=True)


def _reduce(tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
    try:
        dist.all_reduce(tensor, operation)
    except RuntimeError as error:
        raise UserError(
            "another process of this training has ended; start the same command again to resume."
        ) from error
