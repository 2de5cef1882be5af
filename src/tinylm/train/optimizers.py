"""Which optimizer trains which weights, and in which precision.

Where bf16 pays the weights that compute are bf16 and each has an fp32 master:
the optimizer updates the master and rounds it. bf16 alone would lose every update
smaller than 1/256 of a weight. Elsewhere the weights are their own masters.

On a GPU learning rates are tensors, since a CUDA graph repeats numbers as it has recorded them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from tinylm.model import kernels
from tinylm.model.device import bf16_pays
from tinylm.model.encoder import Embeddings
from tinylm.model.kernels import parallel, raw
from tinylm.train.recipes import Optimisation

BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW
MOMENTUM = 0.95  # of Muon
# Newton-Schulz iteration of Muon: the quintic a x + b x^3 + c x^5 drives all singular
# values of a matrix towards 1 in five steps.
QUINTIC, STEPS = (3.4445, -4.7750, 2.0315), 5
# Smaller tensors are not worth a second thread.
PARALLEL = 100_000
# Steps after which the rows of an embedding that had no gradient are visited all the same.
TOGETHER = 128


def make_optimizers(model: nn.Module, optimisation: Optimisation, *, bf16: bool) -> list[Optimizer]:
    """AdamW for all weights (the paper), or Muon for the matrices and AdamW for the rest.

    Muon orthogonalises the update of a matrix, so that all its directions learn at
    one speed. Tiny models need that: with AdamW they spend their first epochs
    predicting token frequencies whatever the context, with Muon they leave this
    plateau within one. Embeddings are look-up tables, not matrices in this sense.

    Args:
        model: with `bf16`, its weights become bf16 here, BatchNorm's excepted; see
            `restore_masters` for the way back.
        optimisation: learning rates and weight decay.
        bf16: whether weights become bf16.
    """
    matrices: set[nn.Parameter] = set()
    if optimisation.matrix_learning_rate is not None:
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
    optimizers: list[Optimizer] = [(CpuAdamW if on_cpu else GpuAdamW)(rest, optimisation, masters)]
    if optimisation.matrix_learning_rate is not None:
        optimizers.append(Muon([p for p in model.parameters() if p in matrices], optimisation, masters))
    if not on_cpu:
        for optimizer in optimizers:
            (group,) = optimizer.param_groups
            group["lr"] = torch.tensor(group["lr"], device=group["params"][0].device)
    return optimizers


def set_share(optimizers: Sequence[Optimizer], share: float) -> None:
    """Set all learning rates to this share of their highest."""
    for optimizer in optimizers:
        (group,) = optimizer.param_groups
        rate = share * optimizer.defaults["lr"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


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
        for group in optimizer.param_groups:
            masters |= {p: optimizer.state[p]["master"] for p in group["params"] if p.dtype == torch.bfloat16}
    return masters


def restore_masters(model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Make the model fp32 again, with the weights of its masters, and fit for other optimizers."""
    masters = masters_of(optimizers)
    model.float()
    for p in model.parameters():
        p.__dict__.pop("takes_rows", None)
    with torch.no_grad():
        for p, master in masters.items():
            p.copy_(master)


class CpuAdamW(Optimizer):
    """AdamW on the CPU, one pass over memory per step.

    The same update as `torch.optim.AdamW`, of bf16 weights on their masters. It also takes the row-wise
    gradients that `word_embedding` leaves. Where these are all there is, as in fine-tuning,
    a step visits only the rows that have one; every other row is up to `TOGETHER` steps
    behind and makes up for them, step by step, when it is read next or all of them must be
    up to date (`settle`).
    """

    def __init__(
        self, parameters: list[nn.Parameter], optimisation: Optimisation, masters: dict[nn.Parameter, Tensor]
    ) -> None:
        super().__init__(parameters, {"lr": optimisation.learning_rate})
        self.decay = optimisation.weight_decay
        self.behind: dict[nn.Parameter, Behind] = {}
        for p in parameters:
            self.state[p] = _moments(p, masters) | {"step": torch.zeros((), dtype=torch.int64)}
            p.__dict__["takes_rows"] = True

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        (group,) = self.param_groups
        for p in group["params"]:
            rows = p.__dict__.pop("row_gradient", None)
            if p.grad is None and rows is None:
                continue
            state = self.state[p]
            state["step"] += 1
            numbers = _numbers(int(state["step"]), group["lr"], self.decay)
            if p.grad is None:
                self._step_rows(p, rows[0], rows[1], numbers)
            else:
                self._settle(p)
                _adamw_step(p, p.grad, state, rows, numbers)

    def settle(self) -> None:
        """Bring all rows up to date."""
        for p in list(self.behind):
            self._settle(p)

    def _step_rows(self, p: nn.Parameter, rows: np.ndarray, sums: Tensor, numbers: tuple[float, ...]) -> None:
        if p not in self.behind:
            ever = self.state[p]["second"].any(1).numpy()
            self.behind[p] = Behind([], np.zeros(len(p), np.int64), ever)
            p.__dict__["before_read"] = lambda ids: self._catch_up(p, ids)
        behind = self.behind[p]
        behind.numbers.append(numbers)
        behind.ever[rows] = True
        self._update_rows(p, rows, sums.numpy())
        if len(behind.numbers) >= TOGETHER:
            self._settle(p)

    def _catch_up(self, p: nn.Parameter, ids: np.ndarray) -> None:
        """Bring the rows `ids` up to date."""
        self._update_rows(p, np.unique(ids), np.zeros((0, p.shape[1]), np.float32))

    def _settle(self, p: nn.Parameter) -> None:
        if p in self.behind:
            self._catch_up(p, np.arange(len(p)))
            del self.behind[p], p.__dict__["before_read"]

    def _update_rows(self, p: nn.Parameter, rows: np.ndarray, sums: np.ndarray) -> None:
        behind, state = self.behind[p], self.state[p]
        master = state.get("master", p)
        tables = (raw(tensor) for tensor in (master, state["first"], state["second"]))
        numbers = np.array(behind.numbers, np.float32)
        working = None if master is p else raw(p)
        arguments = (rows, working, *tables, behind.done, behind.ever, numbers, sums)
        parallel(kernels.adamw_rows, len(rows), *arguments, *map(np.float32, (*BETAS, EPS)))
        behind.done[rows] = len(behind.numbers)


@dataclass
class Behind:
    """Steps that not all rows of an embedding have taken.

    Attributes:
        numbers: of each step, see `_numbers`.
        done: `int64 [rows]`, how many of these steps each row has taken.
        ever: `bool [rows]`, whether a row ever had a gradient; the others only decay.
    """

    numbers: list[tuple[float, ...]]
    done: np.ndarray
    ever: np.ndarray


def _numbers(step: int, rate: float, decay: float) -> tuple[float, float, float]:
    """Decay, rate and correction of the second moment at step `step`, from 1."""
    b1, b2 = BETAS
    return 1 - rate * decay, rate / (1 - b1**step), (1 - b2**step) ** -0.5


def _adamw_step(
    p: nn.Parameter,
    grad: Tensor,
    state: dict[str, Tensor],
    rows: tuple[np.ndarray, Tensor] | None,
    numbers: tuple[float, ...],
) -> None:
    def table(tensor: Tensor) -> np.ndarray:
        """As rows: a vector is one row, a kernel of a convolution one row per filter."""
        return raw(tensor.contiguous()).reshape(len(tensor) if tensor.ndim > 1 else 1, -1)

    master = table(state.get("master", p))
    working = table(p) if "master" in state else None
    row_of, sums = np.zeros(0, np.int64), np.zeros((1, master.shape[1]), np.float32)
    if rows is not None:
        row_of = np.full(len(master), -1)
        row_of[rows[0]] = np.arange(len(rows[0]))
        sums = rows[1].numpy()
    arrays = (working, master, table(state["first"]), table(state["second"]), table(grad), row_of, sums)
    arguments = (*arrays, *map(np.float32, (*numbers, *BETAS, EPS)))
    if p.numel() > PARALLEL:
        parallel(kernels.adamw, len(master), *arguments)
    else:
        kernels.adamw(0, 0, len(master), *arguments)


class GpuAdamW(Optimizer):
    """AdamW on a GPU: PyTorch's fused step, of bf16 weights on their masters, which are then rounded."""

    def __init__(
        self, parameters: list[nn.Parameter], optimisation: Optimisation, masters: dict[nn.Parameter, Tensor]
    ) -> None:
        super().__init__(parameters, {"lr": optimisation.learning_rate})
        self.decay = optimisation.weight_decay
        for p in parameters:
            self.state[p] = _moments(p, masters) | {"step": torch.zeros((), device=p.device)}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        (group,) = self.param_groups
        updated = [p for p in group["params"] if p.grad is not None]
        states = [self.state[p] for p in updated]
        firsts, seconds, steps = ([state[name] for state in states] for name in ("first", "second", "step"))
        adamw(
            [state.get("master", p) for p, state in zip(updated, states, strict=True)],
            [p.grad.float() for p in updated],
            firsts,
            seconds,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=group["lr"],
            weight_decay=self.decay,
            eps=EPS,
            maximize=False,
        )
        halves = [p for p in updated if "master" in self.state[p]]
        if halves:
            torch._foreach_copy_(halves, [self.state[p]["master"] for p in halves])


def _moments(p: nn.Parameter, masters: dict[nn.Parameter, Tensor]) -> dict[str, Tensor]:
    """What AdamW knows of a weight at first; an fp32 weight is its own master."""
    state = {name: torch.zeros_like(p, dtype=torch.float32) for name in ("first", "second")}
    return state | ({"master": masters[p]} if p.dtype == torch.bfloat16 else {})


class Muon(Optimizer):
    """Momentum orthogonalised by Newton-Schulz, for weight matrices with masters.

    The same update as `torch.optim.Muon`, which has no masters.
    """

    def __init__(
        self, parameters: list[nn.Parameter], optimisation: Optimisation, masters: dict[nn.Parameter, Tensor]
    ) -> None:
        super().__init__(parameters, {"lr": optimisation.matrix_learning_rate})
        self.decay = optimisation.weight_decay
        for p in parameters:
            self.state[p] = {"momentum": torch.zeros_like(p, dtype=torch.float32)}
            if p.dtype == torch.bfloat16:
                self.state[p]["master"] = masters[p]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all matrices that have a gradient."""
        (group,) = self.param_groups
        alike = defaultdict(list)
        for p in group["params"]:
            if p.grad is not None:
                alike[tuple(sorted(p.shape))].append(p)
        for matrices in alike.values():
            updates = []
            for p in matrices:
                momentum, grad = self.state[p]["momentum"], p.grad.float()
                momentum.lerp_(grad, 1 - MOMENTUM)
                update = grad.lerp(momentum, MOMENTUM)
                updates.append(update.T if update.shape[0] > update.shape[1] else update)
            # Matrices of tiny models keep no core busy; those of one shape go together.
            for p, update in zip(matrices, orthogonalised(torch.stack(updates)), strict=True):
                master = self.state[p].get("master", p)
                # A tall matrix has longer columns: the same change per output needs more.
                scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
                change = update.T if p.shape[0] > p.shape[1] else update
                master.mul_(1 - group["lr"] * self.decay).sub_(change * (group["lr"] * scale))
                p.copy_(master)


def orthogonalised(matrices: Tensor) -> Tensor:
    """`matrices [count, n, m]`, none taller than wide, with singular values brought near 1, fp32."""
    a, b, c = QUINTIC
    x = matrices.bfloat16() if bf16_pays(matrices.device) else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.float()
