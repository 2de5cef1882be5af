"""Muon: momentum orthogonalised, for weight matrices."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from tinylm.ops.device import supports_bf16
from tinylm.train.optimizer import Optimizer
from tinylm.train.recipes import PhaseConfig

MOMENTUM = 0.95

# Newton-Schulz iteration of Muon: the quintic a x + b x^3 + c x^5 drives all singular
# values of a matrix towards 1 in five steps.
QUINTIC, STEPS = (3.4445, -4.7750, 2.0315), 5


class Muon(Optimizer):
    """Momentum orthogonalised by Newton-Schulz, for weight matrices with masters.

    The same update as `torch.optim.Muon`, which has no masters.
    """

    def __init__(
        self, parameters: list[nn.Parameter], phase: PhaseConfig, masters: dict[nn.Parameter, Tensor]
    ) -> None:
        assert phase.muon_lr is not None
        super().__init__(parameters, phase.muon_lr, phase.weight_decay)
        for p in parameters:
            self.state[p] = {"momentum": torch.zeros_like(p, dtype=torch.float32)}
            if p.dtype == torch.bfloat16:
                self.state[p]["master"] = masters[p]

    @torch.no_grad()
    def step(self) -> None:
        """Update all matrices that have a gradient."""
        by_shape = defaultdict(list)
        for p in self.parameters:
            if p.grad is not None:
                by_shape[tuple(sorted(p.shape))].append(p)
        for matrices in by_shape.values():
            updates = []
            for p in matrices:
                assert p.grad is not None
                momentum, grad = self.state[p]["momentum"], p.grad.float()
                momentum.lerp_(grad, 1 - MOMENTUM)
                update = grad.lerp(momentum, MOMENTUM)
                updates.append(update.T if update.shape[0] > update.shape[1] else update)
            # The matrices of a tiny model are too small to keep a core busy: those of one shape are stacked.
            for p, update in zip(matrices, orthogonalised(torch.stack(updates)), strict=True):
                master = self.state[p].get("master", p)
                # A tall matrix has longer columns, so the same change of each output needs a larger update.
                scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
                change = update.T if p.shape[0] > p.shape[1] else update
                master.mul_(1 - self.lr * self.decay).sub_(change * (self.lr * scale))
                p.copy_(master)


def orthogonalised(matrices: Tensor) -> Tensor:
    """`matrices [count, n, m]`, none taller than wide, with singular values brought near 1, fp32."""
    a, b, c = QUINTIC
    x = matrices.bfloat16() if supports_bf16(matrices.device) else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.float()
