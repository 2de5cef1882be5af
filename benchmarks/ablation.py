"""What each trick of the training step brings on this machine.

One trick at a time is switched off by a small patch of the library; steps with and
without it alternate, and the median over the rounds of their ratio is printed: 1.5
says that the step takes 1.5 times as long without the trick. The ratios do not
multiply to the whole, because the tricks overlap.

    python benchmarks/ablation.py --case mlm-bert1 --rounds 5 --json ablation.json
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tinylm.bench.measure import alternate
from tinylm.bench.training import CASES, prepare_case
from tinylm.model.encoder import Encoder
from tinylm.model.heads import MaskedLanguageModel
from tinylm.ops import autograd, int8_linear
from tinylm.ops import packed as packing
from tinylm.ops.packed import Batch
from tinylm.train import loop, optimizers
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


def predict_everywhere(self: MaskedLanguageModel, batch: Batch, places: Tensor, targets: Tensor) -> Tensor:
    """Logits at every token, and so the last block too; the loss is taken where it is due."""
    return F.cross_entropy(predict(self, batch, torch.arange(len(batch.ids)))[places], targets)


def without_kernels() -> AbstractContextManager[object]:
    """PyTorch's operations in place of ours."""
    stack = ExitStack()
    for module in (autograd, int8_linear):
        stack.enter_context(patch.object(module, "has_kernels", lambda x: False))
    return stack


LONG_ENOUGH = 2.0  # seconds of steps that are timed together

# Without the trick, while a step runs.
DURING_STEPS: dict[str, Patch] = {
    "products in int8": lambda: patch.object(int8_linear, "supports_int8", lambda: False),
    "own kernels, and with them int8": without_kernels,
    "several groups of similar length": lambda: patch.object(packing, "GROUP_FILL", 0.0),
}
PRETRAINING: dict[str, Patch] = {
    "last block only where it is read": lambda: patch.object(Encoder, "forward", encode_everywhere),
    "last block and logits only where there is a loss": lambda: patch.object(
        MaskedLanguageModel, "forward", predict_everywhere
    ),
}
FINETUNING: dict[str, Patch] = {
    "last block only at [CLS]": lambda: patch.object(Encoder, "first_tokens", encode_and_take_first),
    "embeddings whose rows wait": lambda: patch.object(optimizers, "TOGETHER", 1),
}


def ablate(case: str, rounds: int) -> dict[str, dict[str, float]]:
    """Ratios of times without a trick to times with all: median, lowest and highest over the rounds."""
    run = prepare_case(case).run
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

    cells: dict[str, tuple[Run, Patch]] = {"all tricks": (run, nullcontext)}
    patches = DURING_STEPS | (FINETUNING if CASES[case].finetune else PRETRAINING)
    cells |= {name: (run, without) for name, without in patches.items()}
    # The precision is chosen once, when a run begins.
    with patch.object(loop, "supports_bf16", lambda device: False):
        whole = prepare_case(case).run
    cells["bf16 with fp32 masters, and with it kernels and int8"] = (whole, without_kernels)
    # A step before each measurement is timed and thrown away: it finds the memory of the one before.
    works = [work(*cell, count) for cell in cells.values() for count in (1, steps)]
    alternate(works, 1)  # warm-up
    seconds = alternate(works, rounds)[:, 1::2]
    ratios = seconds / seconds[:, :1]
    return {
        name: {"ratio": float(np.median(column)), "low": float(column.min()), "high": float(column.max())}
        for name, column in zip(cells, ratios.T, strict=True)
    }


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cases = ["mlm-bert6", "mlm-bert1", "finetune-bert6-fewrel", "finetune-bert1-fewrel", "mlm-small"]
    parser.add_argument("--case", action="append", choices=cases, help="default: all of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for case in arguments.case or cases:
        results[case] = ablate(case, arguments.rounds)
        table = Table("without", "times as slow", "lowest to highest", title=case)
        for name, found in results[case].items():
            table.add_row(name, f"{found['ratio']:.2f}", f"{found['low']:.2f} to {found['high']:.2f}")
        Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
