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
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tinylm.bench.measure import alternate
from tinylm.bench.texts import openings
from tinylm.bench.training import BATCHES, CASES, RECIPE, SEED
from tinylm.model import batch as packing
from tinylm.model import functions
from tinylm.model.batch import Batch
from tinylm.model.encoder import Encoder
from tinylm.model.heads import MaskedLanguageModel
from tinylm.train import loop
from tinylm.train.loop import Run
from tinylm.train.pretrain import pretraining_run

Patch = Callable[[], AbstractContextManager[object]]
encode, predict = Encoder.forward, MaskedLanguageModel.forward


def encode_everywhere(self: Encoder, batch: Batch, read: Tensor | None = None) -> Tensor:
    """The last block at every token; what is read is taken from its result."""
    x = encode(self, batch)
    return x if read is None else x[read]


def predict_everywhere(self: MaskedLanguageModel, batch: Batch, places: Tensor) -> Tensor:
    """Logits at every token, and so the last block too."""
    return predict(self, batch, torch.arange(len(batch.ids)))[places]


# Without the trick, while a step runs.
DURING_STEPS: dict[str, Patch] = {
    "last block only where it is read": lambda: patch.object(Encoder, "forward", encode_everywhere),
    "last block and logits only where there is a loss": lambda: patch.object(
        MaskedLanguageModel, "forward", predict_everywhere
    ),
    "own bf16 kernels": lambda: patch.object(functions, "has_kernels", lambda x: False),
    "several groups of similar length": lambda: patch.object(packing, "GROUP_FILL", 0.0),
}


def ablate(case: str, rounds: int) -> dict[str, dict[str, float]]:
    """Ratios of times without a trick to times with all: median, lowest and highest over the rounds."""
    source, _ = openings(CASES[case].vocabulary)
    config = RECIPE.model_config_for(len(source.tokenizer), **CASES[case].shape)
    count = BATCHES * RECIPE.pretrain.batch_size
    rows = np.random.default_rng(SEED).choice(len(source.paragraphs), count, replace=False)
    paragraphs = source.paragraphs.take(rows)

    def new_run() -> Run:
        return pretraining_run(paragraphs, source.tokenizer, config, RECIPE, seed=SEED)[1]

    def epoch(run: Run, without: Patch) -> Callable[[], None]:
        def work() -> None:
            with without():
                for _ in range(run.steps_per_epoch):
                    run.step()

        return work

    run = new_run()
    works = {"all tricks": epoch(run, nullcontext)}
    works |= {name: epoch(run, without) for name, without in DURING_STEPS.items()}
    # The precision is chosen once, when a run begins.
    with patch.object(loop, "bf16_pays", lambda: False):
        works["bf16 weights with fp32 masters, and with them the kernels"] = epoch(new_run(), nullcontext)
    alternate(list(works.values()), 1)  # warm-up
    seconds = alternate(list(works.values()), rounds)
    ratios = seconds / seconds[:, :1]
    return {
        name: {"ratio": float(np.median(column)), "low": float(column.min()), "high": float(column.max())}
        for name, column in zip(works, ratios.T, strict=True)
    }


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=["mlm-bert1", "mlm-bert6"], help="default: both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for case in arguments.case or ["mlm-bert1", "mlm-bert6"]:
        results[case] = ablate(case, arguments.rounds)
        table = Table("without", "times as slow", "lowest to highest", title=case)
        for name, found in results[case].items():
            table.add_row(name, f"{found['ratio']:.2f}", f"{found['low']:.2f} to {found['high']:.2f}")
        Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
