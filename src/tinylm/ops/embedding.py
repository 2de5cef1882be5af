"""An embedding whose gradient has only the rows that were read."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn
from torch.autograd import Function

from tinylm.ops.autograd import has_kernels
from tinylm.ops.kernels import raw, sum_rows
from tinylm.ops.threads import parallel


class Embedding(nn.Embedding):
    """`nn.Embedding` for packed ids; the row of padding gets no gradient.

    With `sparse`, which is set for an optimizer that can use it, the gradient is a sparse tensor of
    sums in fp32. A gradient of the whole vocabulary would cost more than a transformer block.
    """

    def forward(self, ids: Tensor) -> Tensor:
        """`int64 [tokens]` to `[tokens, width]`."""
        if self.sparse and has_kernels(self.weight) and torch.is_grad_enabled():
            rows: Tensor = _SparseEmbedding.apply(self.weight, ids, self.padding_idx)
            return rows
        return F.embedding(ids, self.weight, self.padding_idx)

    def make_sparse(self, sparse: bool) -> None:
        """Choose the form of the gradient."""
        self.sparse = sparse
        self.weight.grad_dtype = torch.float32 if sparse else self.weight.dtype


class _SparseEmbedding(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding_id: int) -> Tensor:
        ctx.shape, ctx.ids, ctx.padding_id = weight.shape, ids, padding_id
        return weight.detach()[ids]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        ids = ctx.ids.numpy()
        grad = gradients[0].contiguous()
        order = np.argsort(ids, kind="stable")
        rows, first = np.unique(ids[order], return_index=True)
        sums = torch.empty(len(rows), grad.shape[1])
        bounds = np.append(first, len(order))
        parallel(sum_rows, len(rows), raw(grad), order, bounds, raw(sums))
        sums[torch.from_numpy(rows == ctx.padding_id)] = 0
        indices = torch.from_numpy(rows)[None]
        return (
            torch.sparse_coo_tensor(indices, sums, ctx.shape, check_invariants=False, is_coalesced=True),
            None,
            None,
        )
