"""The training loop, one for pre-training and fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tinylm.errors import UserError
from tinylm.model.heads import MaskedLanguageModel, SequenceClassifier
from tinylm.ops.device import CPU, supports_bf16
from tinylm.system.interrupts import held_back
from tinylm.system.memory import keep_memory
from tinylm.system.progress import progress_bars
from tinylm.train.checkpoint import Checkpoint, TrainState
from tinylm.train.cuda_graphs import Graphs
from tinylm.train.masking import Inputs, StaticInputs, seed_dropout
from tinylm.train.optimizers import make_optimizers, masters_of, restore_masters, set_lr_factor, settle
from tinylm.train.recipes import PhaseConfig
from tinylm.train.together import Together

# Losses that are read together. Reading one waits for a GPU to finish the step, which then has
# nothing to do until Python has prepared and launched the next.
READ_TOGETHER = {"cpu": 1, "cuda": 16}


class Run:
    """A model being trained, one step after the other.

    Args:
        model: trained in place, in bf16 where the processor supports it; see `finish`.
        phase: epochs, learning rate and the like.
        steps_per_epoch: batches of one epoch.
        inputs_of: the inputs of step `step` of epoch `epoch`, both from 0; they must
            depend on nothing else, so that a run can resume at any step.
        loss_of: the loss of such inputs.
        seed: of dropout.
        checkpoint: the run's state is kept there; a run found there resumes.
        device: where it is trained; on a GPU as CUDA graphs, see `cuda_graphs.py`.
        together: the processes that train the model with this one; `inputs_of` gives a part then.
    """

    def __init__(
        self,
        model: nn.Module,
        phase: PhaseConfig,
        steps_per_epoch: int,
        inputs_of: Callable[[int, int], Inputs],
        loss_of: Callable[[Any], Tensor],
        seed: int,
        checkpoint: Checkpoint | None = None,
        device: torch.device = CPU,
        together: Together | None = None,
    ) -> None:
        keep_memory()
        self.model, self.phase, self.steps_per_epoch = model.to(device), phase, steps_per_epoch
        self.inputs_of, self.loss_of, self.seed, self.checkpoint = inputs_of, loss_of, seed, checkpoint
        self.together = together
        if together is not None:
            together.share_weights(model)
        # Share of the steps taken, a tensor: a CUDA graph repeats a number as it was recorded.
        self.progress = torch.zeros((), device=device)
        self.read_together = READ_TOGETHER[device.type]
        self.optimizers = make_optimizers(model, phase, bf16=supports_bf16(device))
        # The first process may have to remove a damaged checkpoint.
        with together.first_before_others() if together else nullcontext():
            self.state = checkpoint.restore(model, self.optimizers) if checkpoint else TrainState()
        self.graphs = None if device.type == "cpu" else Graphs(self.learn, device)

    def step(self) -> float:
        """Take one optimisation step and return its loss."""
        return self.start_step().item()

    def start_step(self) -> Tensor:
        """`step`, without waiting for a GPU: the loss may still be computing."""
        number = self.state.step
        self.model.train()
        seed_dropout(self.seed, number, self.together.rank if self.together else 0)
        epoch, step = divmod(number, self.steps_per_epoch)
        self.progress.fill_(number / (self.phase.epochs * self.steps_per_epoch))
        set_lr_factor(self.optimizers, self.phase.schedule(epoch, step, self.steps_per_epoch))
        if self.graphs is None:
            loss = self.learn(self.inputs_of(epoch, step))
        else:
            loss = self.graphs.step(number, self._static_inputs)
        self.state.step += 1
        return loss

    def learn(self, inputs: Inputs | StaticInputs) -> Tensor:
        """Form the loss of `inputs` and its gradients, and update the weights."""
        loss = self.loss_of(inputs)
        if self.together is not None:
            assert isinstance(inputs, Inputs)
            loss = loss * inputs.weight
        self.model.zero_grad()
        loss.backward()
        if self.together is not None:
            loss = self.together.sum_gradients(self.model, loss)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()

    def _static_inputs(self, number: int) -> StaticInputs:
        """The inputs of step `number`, in fixed shapes, still on the CPU."""
        assert isinstance(self.model, MaskedLanguageModel | SequenceClassifier)
        inputs = self.inputs_of(*divmod(number, self.steps_per_epoch))
        return inputs.static(self.model.config.max_tokens)

    def save(self) -> None:
        """Write the checkpoint, if the run keeps one; of several processes the first does."""
        if self.checkpoint is not None and (self.together is None or self.together.first):
            settle(self.optimizers)
            self.checkpoint.save(self.model, self.optimizers, self.state)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the model's state as `finish` would leave it, to be loaded again later."""
        masters = masters_of(self.optimizers)
        state = self.model.state_dict(keep_vars=True)
        return {
            name: masters.get(value, value).detach().float().to(CPU, copy=True)
            for name, value in state.items()
        }

    def finish(self) -> None:
        """Leave the model in fp32 and evaluation mode."""
        restore_masters(self.model, self.optimizers)
        self.model.eval()


def train(
    run: Run,
    label: str,
    after_epoch: Callable[[], dict[str, float]] | None = None,
    stop: Callable[[], bool] | None = None,
) -> list[dict[str, float]]:
    """Take all steps of a run, or those that are left of it, under a progress bar.

    A signal to end waits for the step under way, and the checkpoint is written before it is obeyed. Of
    several processes all end at the same step.

    Args:
        run: what is trained.
        label: shown beside the progress bar.
        after_epoch: further figures for an epoch's record, such as accuracy.
        stop: called after every step; True ends the run there.

    Returns:
        For each epoch its number, its mean loss and the figures of `after_epoch`.

    Raises:
        UserError: the loss is no longer a number, or another process of the training has ended.
        KeyboardInterrupt: another process has been told to end.
    """
    state, ending = run.state, False
    total = run.phase.epochs * run.steps_per_epoch
    unread: list[Tensor] = []  # losses of the latest steps
    with progress_bars() as bars, held_back() as interrupted:
        bar = bars.add(label, total)
        while state.step < total:
            unread.append(run.start_step())
            epochs, steps = divmod(state.step, run.steps_per_epoch)
            ending = interrupted() if run.together is None else run.together.any(interrupted())
            save = run.checkpoint is not None and (run.checkpoint.due() or ending)
            if steps == 0 or save or len(unread) == run.read_together:
                state.loss_sum += sum(torch.stack(unread).tolist())
                unread.clear()
                if not math.isfinite(state.loss_sum):
                    raise UserError(
                        f"{label}: the loss is not a number after step {state.step:,};"
                        f" learning rate {run.phase.learning_rate} is too high for this model."
                    )
                mean_loss = state.loss_sum / (steps or run.steps_per_epoch)
                info = f"epoch {epochs + bool(steps)} loss {mean_loss:.3f}"
                bars.update(bar, completed=state.step, info=info)
            if steps == 0:
                record = {"epoch": epochs, "loss": mean_loss}
                if after_epoch is not None:
                    run.model.eval()
                    record |= after_epoch()
                state.history.append(record)
                state.loss_sum = 0.0
            if save:
                run.save()
            if ending or (stop is not None and stop()):
                break
    if ending:  # and this process was not told so itself
        raise KeyboardInterrupt
    run.finish()
    return state.history
