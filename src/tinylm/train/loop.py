"""The training loop, one for pre-training and fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from tinylm.errors import UserError
from tinylm.progress import progress_bar
from tinylm.train.batching import seed_dropout
from tinylm.train.checkpoint import Checkpoint, Place
from tinylm.train.optimizers import bf16_pays, make_optimizers, restore_masters
from tinylm.train.recipes import Optimisation


def train(
    model: nn.Module,
    optimisation: Optimisation,
    steps_per_epoch: int,
    loss_of: Callable[[int, int], Tensor],
    *,
    seed: int,
    label: str,
    checkpoint: Checkpoint | None = None,
    after_epoch: Callable[[], dict[str, float]] | None = None,
) -> list[dict[str, float]]:
    """Minimise a loss with AdamW under a linearly falling learning rate.

    Args:
        model: trained in place, in bf16 where that pays; left in fp32 and evaluation mode.
        optimisation: epochs, learning rate and the like.
        steps_per_epoch: batches of one epoch.
        loss_of: the loss of step `step` of epoch `epoch`, both from 0; it must
            depend on nothing else, so that a run can go on anywhere.
        seed: of dropout.
        label: shown beside the progress bar.
        checkpoint: where the run's state is kept; a run found there goes on.
        after_epoch: further figures for an epoch's record, such as accuracy.

    Returns:
        For each epoch its number, its mean loss and the figures of `after_epoch`.

    Raises:
        UserError: the loss is no longer a number.
    """
    optimizers = make_optimizers(model, optimisation, bf16=bf16_pays())
    place = checkpoint.restore(model, optimizers) if checkpoint else Place()
    total = optimisation.epochs * steps_per_epoch
    with progress_bar() as bar:
        task = bar.add_task(label, total=total, completed=place.step, info="")
        while place.step < total:
            epoch, step = divmod(place.step, steps_per_epoch)
            model.train()
            seed_dropout(seed, place.step)
            share = optimisation.schedule(epoch, step, steps_per_epoch)
            loss = loss_of(epoch, step)
            model.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = share * optimizer.defaults["lr"]
                optimizer.step()
            place.loss_sum += loss.item()
            place.step += 1
            if not math.isfinite(place.loss_sum):
                raise UserError(
                    f"{label}: the loss is no number after step {place.step:,};"
                    f" learning rate {optimisation.learning_rate} is too high for this model."
                )
            mean_loss = place.loss_sum / (step + 1)
            bar.update(task, completed=place.step, info=f"epoch {epoch + 1} loss {mean_loss:.3f}")
            if step + 1 == steps_per_epoch:
                record = {"epoch": epoch + 1, "loss": mean_loss}
                if after_epoch is not None:
                    model.eval()
                    record |= after_epoch()
                place.history.append(record)
                place.loss_sum = 0.0
            if checkpoint is not None and checkpoint.due():
                checkpoint.save(model, optimizers, place)
    restore_masters(model, optimizers)
    model.eval()
    return place.history
