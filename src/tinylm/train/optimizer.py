"""What our optimizers have in common.

`torch.optim.Optimizer` has much more, and making one imports PyTorch's compiler. That takes seconds in every
process that trains, and a fit of a minute has three.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Optimizer:
    """Weights that are trained with one learning rate.

    Attributes:
        parameters: the weights.
        highest_lr: the learning rate at its highest.
        lr: the one of the next step; a tensor on a GPU.
        decay: weight decay, decoupled.
        state: of each weight, the tensors that a checkpoint keeps.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, decay: float) -> None:
        self.parameters, self.highest_lr, self.decay = parameters, lr, decay
        self.lr: Any = lr
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {p: {} for p in parameters}

    def step(self) -> None:
        """Update all weights that have a gradient."""
        raise NotImplementedError

    def set_lr_factor(self, factor: float) -> None:
        """Set the learning rate to `factor` times its highest."""
        if isinstance(self.lr, Tensor):
            self.lr.fill_(factor * self.highest_lr)
        else:
            self.lr = factor * self.highest_lr

    def keep_lr_on(self, device: torch.device) -> None:
        """Make the learning rate a tensor, since a CUDA graph repeats a number as it was recorded."""
        self.lr = torch.tensor(self.lr, device=device)
