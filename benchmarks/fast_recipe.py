"""What parts of the recipe `fast` bring to pre-training: seconds and accuracy.

The same BERT-1 is pre-trained on the embedded corpus for some epochs, with the recipe as it is, with
word embeddings that begin at random and not from neighbours in W_S, and with a loss over the whole
vocabulary and not over a sample of it. It is then fine-tuned on the corpus's topics, whose test
articles pre-training never sees. Printed are the seconds of pre-training on one thread and the test
accuracy, mean and standard deviation over the seeds.

    python benchmarks/fast_recipe.py --seeds 3 --epochs 1 3 --vocabulary 4000 16000 --json fast.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tinylm.model.config import ModelConfig
from tinylm.model.heads import MaskedLanguageModel
from tinylm.system.processes import run_side_by_side
from tinylm.text.prepare import TokenizedCorpus, prepare
from tinylm.text.tasks import load_task
from tinylm.train.finetune import EncodedTask, encode_task, finetune
from tinylm.train.pretrain import pretrain
from tinylm.train.recipes import RECIPES

RECIPE = RECIPES["fast"]
CORPUS, TASK, HEADS = "vital", "vital-topics", 2
CHANGES: dict[str, dict[str, Any]] = {
    "whole vocabulary in the loss": {"sampled_tokens": None},
    "begins at random": {"neighbour_window": None},
    "as it is": {},
}


@lru_cache(maxsize=1)
def data(vocabulary: int) -> tuple[TokenizedCorpus, EncodedTask]:
    """Corpus and task, once in each process."""
    source = prepare(CORPUS, vocabulary=vocabulary, max_tokens=RECIPE.max_tokens)
    return source, encode_task(load_task(TASK), source.tokenizer, RECIPE.max_tokens)


def trial(vocabulary: int, epochs: int, change: str, seed: int) -> tuple[float, float]:
    """Seconds of pre-training and test accuracy."""
    source, task = data(vocabulary)
    recipe = RECIPE.with_epochs(pretrain=max(epochs, 1)).model_copy(update=CHANGES[change])
    config = recipe.model_config_for(len(source.tokenizer), layers=1, heads=HEADS)
    start: MaskedLanguageModel | ModelConfig = config
    begin = time.perf_counter()
    if epochs:
        start, _ = pretrain(source.paragraphs, source.tokenizer, config, recipe, seed=seed)
    seconds = time.perf_counter() - begin
    done = finetune(task, source.tokenizer, start, recipe, seed=seed, test_each_epoch=False)
    return seconds, done.accuracy


def main() -> None:
    """Run all trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, nargs="+", default=[3])
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[16000])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cells = [(size, 0, "as it is") for size in options.vocabulary]
    cells += itertools.product(options.vocabulary, options.epochs, CHANGES)
    cells.sort(key=lambda cell: cell[:2])
    for size in options.vocabulary:
        data(size)  # tokenizes once, before the processes ask for it
    jobs = [(*cell, seed) for cell in reversed(cells) for seed in range(options.seeds)]
    found = dict(zip(jobs, run_side_by_side(trial, jobs), strict=True))
    table = Table("vocabulary", "epochs", "recipe fast", "seconds", "accuracy")
    records = []
    for vocabulary, epochs, change in cells:
        trials = np.array([found[vocabulary, epochs, change, seed] for seed in range(options.seeds)])
        (seconds, accuracy), spread = trials.mean(0), trials[:, 1].std(ddof=1)
        what = change if epochs else "no pre-training"
        cost = f"{seconds:.0f}" if epochs else ""
        table.add_row(f"{vocabulary:,}", str(epochs), what, cost, f"{accuracy:.3f} ± {spread:.3f}")
        records.append(
            {"vocabulary": vocabulary, "epochs": epochs, "recipe": what, "trials": trials.tolist()}
        )
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    # Other processes find `trial` by the name of its module, which `__main__` is not for them.
    from fast_recipe import main as main_of_module

    main_of_module()
