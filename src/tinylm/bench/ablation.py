"""Suite `ablation`: what each trick of the training step brings.

One trick at a time is switched off by a small patch of the library. Steps with and without it
alternate; a ratio of 1.5 says that a step takes 1.5 times as long without the trick. The tricks
overlap, so their ratios do not multiply to the whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from unittest.mock import patch

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

from tinylm.bench import training
from tinylm.bench.measure import Machine, Measured, alternate, summarise
from tinylm.model.encoder import Encoder
from tinylm.model.heads import MaskedLanguageModel
from tinylm.ops import autograd, int8_linear, linear
from tinylm.ops import packed as packing
from tinylm.ops.packed import Batch
from tinylm.train import adamw, loop
from tinylm.train.loop import Run

Patch = Callable[[], AbstractContextManager[object]]
encode, predict = Encoder.forward, MaskedLanguageModel.forward


def encode_everywhere(self: Encoder, batch: Batch, read: Tensor | None = None) -> Tensor:
    """The last block at every token; what is read is taken from its result."""
    x = encode(self, batch)
    return x if read is None else x[read]


def encode_and_take_first(self: Encoder, batch: Batch) -> Tensor:
    """The last block at every token; [CLS] is taken from its result."""
    return encode(self, batch)[batch.first]


def predict_everywhere(
    self: MaskedLanguageModel,
    batch: Batch,
    masked_positions: Tensor,
    targets: Tensor,
    candidates: None = None,
) -> Tensor:
    """Logits at every token, and so the last block too; the loss is that of the masked tokens.

    `candidates` is always None: the recipe `paper` does not sample the vocabulary.
    """
    return F.cross_entropy(predict(self, batch, torch.arange(len(batch.ids)))[masked_positions], targets)


def without_kernels() -> AbstractContextManager[object]:
    """PyTorch's operations in place of ours."""
    stack = ExitStack()
    for module in (autograd, int8_linear, linear):
        stack.enter_context(patch.object(module, "has_kernels", lambda x: False))
    return stack


LONG_ENOUGH = 2.0  # seconds of steps that are timed together
CASES = ["mlm-bert6", "mlm-bert1", "finetune-bert6-fewrel", "finetune-bert1-fewrel", "mlm-small"]

# Patches that switch a trick off while a step runs.
DURING_STEPS: dict[str, Patch] = {
    "products in int8": lambda: patch.object(int8_linear, "gains_by_int8", lambda: False),
    "own kernels, and with them int8": without_kernels,
    "products in few shapes": lambda: patch.multiple(linear, MANY=1, ROWS=1),
    "several groups of similar length": lambda: patch.object(packing, "GROUP_FILL", 0.0),
}
PRETRAINING: dict[str, Patch] = {
    "last block only where it is read": lambda: patch.object(Encoder, "forward", encode_everywhere),
    "last block and logits only where there is a loss": lambda: patch.object(
        MaskedLanguageModel, "forward", predict_everywhere
    ),
}
FINETUNING: dict[str, Patch] = {
    "last block only at [CLS]": lambda: patch.object(Encoder, "pooled", encode_and_take_first),
    "embeddings whose rows wait": lambda: patch.object(adamw, "TOGETHER", 1),
}


def measure_case(name: str, rounds: int, machine: Machine) -> list[Measured]:
    """Measure one of CASES, with and without each trick."""
    run = training.prepare_case(name).run
    for _ in range(3 * run.steps_per_epoch):  # the first ones compile
        run.step()
    start = time.perf_counter()
    run.step()
    steps = math.ceil(LONG_ENOUGH / (time.perf_counter() - start))

    def work(run: Run, without: Patch, steps: int) -> Callable[[], None]:
        def take() -> None:
            with without():
                for _ in range(steps):
                    run.step()

        return take

    patches = DURING_STEPS | (FINETUNING if training.CASES[name].finetune else PRETRAINING)
    cells: dict[str, tuple[Run, Patch]] = {"": (run, nullcontext)}
    cells |= {trick: (run, without) for trick, without in patches.items()}
    # The precision is chosen once, when a run is made.
    with patch.object(loop, "supports_bf16", lambda device: False):
        whole = training.prepare_case(name).run
    cells["bf16 with fp32 masters, and with it kernels and int8"] = (whole, without_kernels)
    # A step before each measurement is timed and thrown away: it finds the memory of the one before.
    works = [work(*cell, count) for cell in cells.values() for count in (1, steps)]
    alternate(works, 1)  # warm-up
    rates = steps / alternate(works, rounds)[:, 1::2]
    return [
        summarise(f"{name} without {trick}", rates[:, [0, column]], "steps/s", None, None, {})
        for column, trick in enumerate(cells)
        if trick
    ]
