# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated, misc"
# (numba compiles functions that carry no types)
"""AdamW with fp32 masters: our kernels on the CPU, PyTorch's fused step on a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw as fused_adamw
from torch.utils.hooks import RemovableHandle

from tinylm.ops.embedding import Embedding
from tinylm.ops.kernels import raw
from tinylm.ops.scalar import ONE, f4, inline, kernel, load, store
from tinylm.ops.threads import parallel
from tinylm.train.optimizer import Optimizer
from tinylm.train.recipes import PhaseConfig

BETAS, EPS = (0.9, 0.999), 1e-8
PARALLEL = 100_000  # weights; smaller tensors are not worth a second thread
TOGETHER = 128  # steps after which the rows of an embedding without a gradient are updated too


class CpuAdamW(Optimizer):
    """AdamW on the CPU, one pass over memory per step.

    The same update as `torch.optim.AdamW`, for bf16 weights applied to their masters.

    The gradient of an embedding may be sparse. A step then updates only the rows that have one. The
    other rows fall behind, by up to `TOGETHER` steps, and take the missed steps one by one when they
    are read next or when all rows must be up to date (`settle`).

    Args:
        parameters: all weights to train.
        phase: learning rate and weight decay.
        masters: the fp32 master of each bf16 weight.
        embeddings: modules whose weights may have sparse gradients.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        phase: PhaseConfig,
        masters: dict[nn.Parameter, Tensor],
        embeddings: Sequence[Embedding] = (),
    ) -> None:
        super().__init__(parameters, phase.learning_rate, phase.weight_decay)
        self.embeddings = {embedding.weight: embedding for embedding in embeddings}
        self.behind: dict[nn.Parameter, Behind] = {}
        for p in parameters:
            self.state[p] = _moments(p, masters) | {"step": torch.zeros((), dtype=torch.int64)}

    @torch.no_grad()
    def step(self) -> None:
        """Update all weights that have a gradient."""
        for p in self.parameters:
            if p.grad is None:
                continue
            state = self.state[p]
            state["step"] += 1
            numbers = _numbers(int(state["step"]), self.lr, self.decay)
            if p.grad.is_sparse:
                self._step_rows(p, p.grad.coalesce(), numbers)
            else:
                self._settle(p)
                _step_all(p, p.grad, state, numbers)

    def settle(self) -> None:
        """Bring all rows up to date."""
        for p in list(self.behind):
            self._settle(p)

    def _step_rows(self, p: nn.Parameter, grad: Tensor, numbers: tuple[float, ...]) -> None:
        if p not in self.behind:
            self.behind[p] = Behind(
                numbers=[],
                done=np.zeros(len(p), np.int64),
                ever=self.state[p]["second"].any(1).numpy(),
                hook=self.embeddings[p].register_forward_pre_hook(
                    lambda _, inputs: self._catch_up(p, inputs[0].numpy())
                ),
            )
        behind, rows = self.behind[p], grad.indices()[0].numpy()
        behind.numbers.append(numbers)
        behind.ever[rows] = True
        self._update_rows(p, rows, grad.values().numpy())
        if len(behind.numbers) >= TOGETHER:
            self._settle(p)

    def _catch_up(self, p: nn.Parameter, ids: np.ndarray) -> None:
        """Bring the rows `ids` up to date."""
        self._update_rows(p, np.unique(ids), np.zeros((0, p.shape[1]), np.float32))

    def _settle(self, p: nn.Parameter) -> None:
        if p in self.behind:
            self._catch_up(p, np.arange(len(p)))
            self.behind.pop(p).hook.remove()

    def _update_rows(self, p: nn.Parameter, rows: np.ndarray, grad: np.ndarray) -> None:
        behind, state = self.behind[p], self.state[p]
        master = state.get("master", p)
        tables = (raw(tensor) for tensor in (master, state["first"], state["second"]))
        numbers = np.array(behind.numbers, np.float32)
        working = None if master is p else raw(p)
        arguments = (rows, working, *tables, behind.done, behind.ever, numbers, grad)
        parallel(_adamw_rows, len(rows), *arguments, *map(np.float32, (*BETAS, EPS)))
        behind.done[rows] = len(behind.numbers)


@dataclass(frozen=True)
class Behind:
    """The latest steps of an embedding, which some of its rows have yet to take.

    Attributes:
        numbers: the `_numbers` of each step.
        done: `int64 [rows]`, how many of these steps each row has taken.
        ever: `bool [rows]`, whether a row ever had a gradient; the others only decay.
        hook: brings rows up to date before the embedding reads them.
    """

    numbers: list[tuple[float, ...]]
    done: np.ndarray
    ever: np.ndarray
    hook: RemovableHandle


class GpuAdamW(Optimizer):
    """AdamW on a GPU: PyTorch's fused step, of bf16 weights on their masters, which are then rounded."""

    def __init__(
        self, parameters: list[nn.Parameter], phase: PhaseConfig, masters: dict[nn.Parameter, Tensor]
    ) -> None:
        super().__init__(parameters, phase.learning_rate, phase.weight_decay)
        for p in parameters:
            self.state[p] = _moments(p, masters) | {"step": torch.zeros((), device=p.device)}

    @torch.no_grad()
    def step(self) -> None:
        """Update all weights that have a gradient."""
        updated = [p for p in self.parameters if p.grad is not None]
        states = [self.state[p] for p in updated]
        # All gradients in fp32, in few launches: a model has a hundred tensors, most of them tiny.
        gradients = [torch.empty_like(p, dtype=torch.float32) for p in updated]
        torch._foreach_copy_(gradients, [p.grad for p in updated])
        firsts, seconds, steps = ([state[name] for state in states] for name in ("first", "second", "step"))
        fused_adamw(
            [state.get("master", p) for p, state in zip(updated, states, strict=True)],
            gradients,
            firsts,
            seconds,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.lr,
            weight_decay=self.decay,
            eps=EPS,
            maximize=False,
        )
        halves: list[Tensor] = [p for p in updated if "master" in self.state[p]]
        if halves:
            torch._foreach_copy_(halves, [state["master"] for state in states if "master" in state])


def _moments(p: nn.Parameter, masters: dict[nn.Parameter, Tensor]) -> dict[str, Tensor]:
    """The initial state of AdamW for a weight; an fp32 weight is its own master."""
    state = {name: torch.zeros_like(p, dtype=torch.float32) for name in ("first", "second")}
    return state | ({"master": masters[p]} if p.dtype == torch.bfloat16 else {})


def _numbers(step: int, rate: float, decay: float) -> tuple[float, float, float]:
    """Decay, learning rate and correction of the second moment at step `step`, from 1."""
    b1, b2 = BETAS
    return 1 - rate * decay, rate / (1 - b1**step), (1 - b2**step) ** -0.5


def _step_all(p: nn.Parameter, grad: Tensor, state: dict[str, Tensor], numbers: tuple[float, ...]) -> None:
    """One AdamW step of all weights of a tensor."""

    def table(tensor: Tensor) -> np.ndarray:
        """The tensor as rows: a vector is one row, a convolution has one row per filter."""
        return raw(tensor.contiguous()).reshape(len(tensor) if tensor.ndim > 1 else 1, -1)

    master = table(state.get("master", p))
    working = table(p) if "master" in state else None
    arrays = (working, master, table(state["first"]), table(state["second"]), table(grad))
    arguments = (*arrays, *map(np.float32, (*numbers, *BETAS, EPS)))
    if p.numel() > PARALLEL:
        parallel(_adamw, len(master), *arguments)
    else:
        _adamw(0, 0, len(master), *arguments)


@kernel
def _adamw(part, lo, hi, working, master, first, second, grad, decay, rate, correction, b1, b2, eps):
    """One AdamW step in one pass over memory.

    working: bf16 weights `[rows, width]`, or None; master, first, second: fp32 weights and moments;
    grad: fp32 or bf16.
    """
    for r in range(lo, hi):
        for j in range(master.shape[1]):
            m, v, w = _updated(
                master[r, j],
                first[r, j],
                second[r, j],
                load(grad[r, j]),
                decay,
                rate,
                correction,
                b1,
                b2,
                eps,
            )
            first[r, j] = m
            second[r, j] = v
            master[r, j] = w
            if working is not None:
                working[r, j] = store(working, w)


@kernel
def _adamw_rows(part, lo, hi, rows, working, master, first, second, done, ever, numbers, grad, b1, b2, eps):
    """AdamW steps done[r] to len(numbers) of the rows r in `rows`, as `_adamw` would take them.

    grad: fp32 gradients `[rows, width]` in the last of these steps, or no row where there is
    none; before it there is none either. numbers: decay, rate and correction of each step.
    Where `ever` is False, both moments are zero.
    """
    width, steps = master.shape[1], len(numbers)
    last = steps - 1 if len(grad) else steps  # the step that has a gradient
    nothing = np.zeros(width, f4)
    for i in range(lo, hi):
        r = rows[i]
        w, m, v = master[r], first[r], second[r]
        for step in range(done[r], steps):
            decay, rate, correction = numbers[step]
            g = grad[i] if step == last else nothing
            if ever[r]:
                for j in range(width):
                    m[j], v[j], w[j] = _updated(w[j], m[j], v[j], g[j], decay, rate, correction, b1, b2, eps)
            else:
                for j in range(width):
                    w[j] *= decay
        if working is not None:
            for j in range(width):
                working[r, j] = store(working, w[j])


@inline
def _updated(w, m, v, g, decay, rate, correction, b1, b2, eps):
    """First and second moment and weight after one AdamW step with gradient g."""
    m = m * b1 + g * (ONE - b1)
    v = v * b2 + g * g * (ONE - b2)
    return m, v, w * decay - rate * m / (math.sqrt(v) * correction + eps)
