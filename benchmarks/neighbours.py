"""What pre-training gains when its word embeddings begin from neighbours in W_S.

The same BERT-1 is pre-trained on the embedded corpus for some epochs, once from random word
embeddings and once from those of `train/cooccurrence.py`, and fine-tuned on the corpus's topics,
whose test articles pre-training never sees. Printed are the loss of the last epoch and the test
accuracy, mean and standard deviation over the seeds.

    python benchmarks/neighbours.py --seeds 3 --epochs 1 3 --json neighbours.json
"""

from __future__ import annotations

import argparse
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tinylm.model.config import ModelConfig
from tinylm.model.heads import MaskedLanguageModel
from tinylm.parallel import run_side_by_side
from tinylm.text.prepare import Prepared, prepare
from tinylm.text.tasks import load_task
from tinylm.train.finetune import EncodedTask, encode_task, finetune
from tinylm.train.pretrain import pretrain
from tinylm.train.recipes import RECIPES

RECIPE = RECIPES["fast"]
CORPUS, TASK, HEADS = "vital", "vital-topics", 2


@lru_cache(maxsize=1)
def data() -> tuple[Prepared, EncodedTask]:
    """Corpus and task, once in each process."""
    source = prepare(CORPUS, vocabulary=RECIPE.vocabulary, max_tokens=RECIPE.max_tokens)
    return source, encode_task(load_task(TASK), source.tokenizer, RECIPE.max_tokens)


def trial(epochs: int, neighbours: bool, seed: int) -> tuple[float, float]:
    """Loss of the last epoch of pre-training (nan without any) and test accuracy."""
    source, task = data()
    recipe = RECIPE.with_epochs(pretrain=max(epochs, 1))
    if not neighbours:
        recipe = recipe.model_copy(update={"neighbour_window": None})
    config = recipe.model_config_for(len(source.tokenizer), layers=1, heads=HEADS)
    start: MaskedLanguageModel | ModelConfig = config
    loss = float("nan")
    if epochs:
        start, history = pretrain(source.paragraphs, source.tokenizer, config, recipe, seed=seed)
        loss = history[-1]["loss"]
    done = finetune(task, source.tokenizer, start, recipe, seed=seed, test_each_epoch=False)
    return loss, done.accuracy


def main() -> None:
    """Run all trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data()  # tokenizes once, before the processes ask for it
    cells = [(0, False), *((epochs, start) for epochs in options.epochs for start in (False, True))]
    jobs = [(*cell, seed) for cell in sorted(cells, reverse=True) for seed in range(options.seeds)]
    found = dict(zip(jobs, run_side_by_side(trial, jobs), strict=True))
    table = Table("epochs", "begins from", "loss", "accuracy")
    records = []
    for epochs, neighbours in cells:
        trials = np.array([found[epochs, neighbours, seed] for seed in range(options.seeds)])
        loss, accuracy, spread = trials[:, 0].mean(), trials[:, 1].mean(), trials[:, 1].std(ddof=1)
        begin = ("neighbours" if neighbours else "random weights") if epochs else "no pre-training"
        table.add_row(str(epochs), begin, f"{loss:.3f}" if epochs else "", f"{accuracy:.3f} ± {spread:.3f}")
        records.append({"epochs": epochs, "begin": begin, "trials": trials.tolist()})
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    # Other processes find `trial` by the name of its module, which `__main__` is not for them.
    from neighbours import main as main_of_module

    main_of_module()
