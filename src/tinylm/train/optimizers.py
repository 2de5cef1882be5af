"""Which optimizer trains which weights, and in which precision.

Where the processor multiplies bf16, the working weights are bf16 and each has an fp32
master: the optimizer updates the master and rounds it to the working weight. bf16 alone
would lose every update smaller than 1/256 of a weight. Elsewhere the weights are fp32 and
their own masters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinylm.model.encoder import Embeddings
from tinylm.ops.embedding import Embedding
from tinylm.train.adamw import CpuAdamW, GpuAdamW
from tinylm.train.muon import Muon
from tinylm.train.optimizer import Optimizer
from tinylm.train.recipes import PhaseConfig


def make_optimizers(model: nn.Module, phase: PhaseConfig, *, bf16: bool) -> list[Optimizer]:
    """AdamW for all weights (the paper), or Muon for the matrices and AdamW for the rest.

    Muon orthogonalises the update of a matrix, so that all its directions learn at the
    same speed. Tiny models need that: with AdamW they spend their first epochs predicting
    token frequencies whatever the context; with Muon they leave this plateau within one
    epoch. Embeddings are look-up tables, so AdamW trains them.

    Args:
        model: with `bf16`, its weights become bf16 here, BatchNorm's excepted; see
            `restore_masters` for the way back.
        phase: learning rates and weight decay.
        bf16: whether weights become bf16.
    """
    matrices: set[nn.Parameter] = set()
    if phase.muon_lr is not None:
        tables = {p for part in model.modules() if isinstance(part, Embeddings) for p in part.parameters()}
        matrices = {p for p in model.parameters() if p.ndim == 2 and p not in tables}
    masters = {p: p.detach().clone() for p in model.parameters()} if bf16 else {}
    if bf16:
        model.to(torch.bfloat16)
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):  # running averages need more than 8 bits
                part.float()
    rest = [p for p in model.parameters() if p not in matrices]
    on_cpu = all(p.device.type == "cpu" for p in rest)
    embeddings = [part for part in model.modules() if isinstance(part, Embedding)]
    for embedding in embeddings:
        embedding.make_sparse(on_cpu)
    optimizers: list[Optimizer] = [
        CpuAdamW(rest, phase, masters, embeddings) if on_cpu else GpuAdamW(rest, phase, masters)
    ]
    if phase.muon_lr is not None:
        optimizers.append(Muon([p for p in model.parameters() if p in matrices], phase, masters))
    if not on_cpu:
        for optimizer in optimizers:
            optimizer.keep_lr_on(optimizer.parameters[0].device)
    return optimizers


def set_lr_factor(optimizers: Sequence[Optimizer], factor: float) -> None:
    """Set all learning rates to `factor` times their highest."""
    for optimizer in optimizers:
        optimizer.set_lr_factor(factor)


def settle(optimizers: Sequence[Optimizer]) -> None:
    """Bring all weights up to date, before they are saved or copied; see `CpuAdamW`."""
    for optimizer in optimizers:
        if isinstance(optimizer, CpuAdamW):
            optimizer.settle()


def masters_of(optimizers: Sequence[Optimizer]) -> dict[nn.Parameter, Tensor]:
    """The fp32 master of each bf16 weight, up to date."""
    settle(optimizers)
    masters: dict[nn.Parameter, Tensor] = {}
    for optimizer in optimizers:
        masters |= {p: s["master"] for p, s in optimizer.state.items() if p.dtype == torch.bfloat16}
    return masters


def restore_masters(model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Make the model fp32 again, with the weights of its masters, and ready for other optimizers."""
    masters = masters_of(optimizers)
    model.zero_grad()
    model.float()
    for part in model.modules():
        if isinstance(part, Embedding):
            part.make_sparse(False)
    with torch.no_grad():
        for p, master in masters.items():
            p.copy_(master)
