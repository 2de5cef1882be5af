"""Whether products in int8 change what is learned: pre-training and fine-tuning with and without.

python benchmarks/int8_linear.py --seeds 3 --json int8-training.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table

from fast_recipe import data
from tinylm.ops import int8_linear
from tinylm.system.processes import run_side_by_side
from tinylm.train.finetune import finetune
from tinylm.train.pretrain import pretrain
from tinylm.train.recipes import RECIPES

# The loss over the whole vocabulary is one that other losses can be compared with.
RECIPE = RECIPES["fast"].with_epochs(pretrain=2).model_copy(update={"sampled_tokens": None})
VOCABULARY = 4000
# The first block works on all tokens, and its rows are wide enough for int8.
SHAPE = {"layers": 2, "heads": 4}


def trial(int8: bool, seed: int) -> tuple[float, float]:
    """Loss of the last epoch of pre-training and test accuracy."""
    source, task = data(VOCABULARY)
    config = RECIPE.model_config_for(len(source.tokenizer), **SHAPE)
    with patch.object(int8_linear, "supports_int8", lambda: int8):
        start, history = pretrain(source.paragraphs, source.tokenizer, config, RECIPE, seed=seed)
        done = finetune(task, source.tokenizer, start, RECIPE, seed=seed, test_each_epoch=False)
    return history[-1]["loss"], done.accuracy


def main() -> None:
    """Run all trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data(VOCABULARY)  # tokenizes once, before the processes ask for it
    jobs = [(int8, seed) for seed in range(options.seeds) for int8 in (False, True)]
    found = dict(zip(jobs, run_side_by_side(trial, jobs), strict=True))
    table = Table("products", "loss", "accuracy")
    records = []
    for int8 in (False, True):
        trials = np.array([found[int8, seed] for seed in range(options.seeds)])
        loss, accuracy = (f"{column.mean():.3f} ± {column.std(ddof=1):.3f}" for column in trials.T)
        table.add_row("int8" if int8 else "bf16", loss, accuracy)
        records.append({"int8": int8, "trials": trials.tolist()})
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    # Other processes find `trial` by the name of its module, which `__main__` is not for them.
    from int8_training import main as main_of_module

    main_of_module()
