"""Suite `int8`: whether products in int8 change what is learned, and how long training takes with them.

A model is pre-trained and fine-tuned with products in int8, and with the same products in bf16. A round is
a seed. Measured are the seconds of both trainings on one thread; the details hold the loss of the
last epoch of pre-training and the test accuracy of every seed.
"""

from __future__ import annotations

import time
from functools import lru_cache
from unittest.mock import patch

import numpy as np

from tinylm.bench.measure import Machine, Measured, summarise
from tinylm.ops import int8_linear
from tinylm.system.processes import run_side_by_side
from tinylm.text.prepare import TokenizedCorpus, prepare
from tinylm.text.tasks import load_task
from tinylm.train.finetune import EncodedTask, encode_task, finetune
from tinylm.train.pretrain import pretrain
from tinylm.train.recipes import RECIPES, Recipe

CASES = ("int8-products",)
# The loss over the whole vocabulary can be compared with other losses, that over a sample cannot.
RECIPE = RECIPES["fast"].with_epochs(pretrain=2).model_copy(update={"sampled_tokens": None})
CORPUS, TASK, VOCABULARY = "vital", "vital-topics", 4000
# The first block works on all tokens, and its rows are wide enough for int8.
LAYERS, HEADS = 2, 4


@lru_cache(maxsize=1)
def data(vocabulary: int) -> tuple[TokenizedCorpus, EncodedTask]:
    """Corpus and task, once in each process."""
    source = prepare(CORPUS, vocabulary=vocabulary, max_tokens=RECIPE.max_tokens)
    return source, encode_task(load_task(TASK), source.tokenizer, RECIPE.max_tokens)


def trial(
    recipe: Recipe, vocabulary: int, layers: int, heads: int, int8: bool, seed: int
) -> tuple[float, float, float]:
    """Seconds, loss of the last epoch of pre-training, and test accuracy."""
    source, task = data(vocabulary)
    config = recipe.model_config_for(len(source.tokenizer), layers=layers, heads=heads)
    begin = time.perf_counter()
    with patch.object(int8_linear, "gains_by_int8", lambda: int8):
        start, history = pretrain(source.paragraphs, source.tokenizer, config, recipe, seed=seed)
        done = finetune(task, source.tokenizer, start, recipe, seed=seed, test_each_epoch=False)
    return time.perf_counter() - begin, history[-1]["loss"], done.accuracy


def measure_case(name: str, rounds: int, machine: Machine) -> Measured:
    """Measure one of CASES."""
    data(VOCABULARY)  # tokenizes once, before the processes do
    jobs = [
        (RECIPE, VOCABULARY, LAYERS, HEADS, int8, seed) for seed in range(rounds) for int8 in (True, False)
    ]
    found = np.array(list(run_side_by_side(trial, jobs))).reshape(rounds, 2, 3)
    facts = {
        figure: {form: np.round(found[:, i, column], 4).tolist() for i, form in enumerate(("int8", "bf16"))}
        for column, figure in ((1, "loss"), (2, "accuracy"))
    }
    return summarise(name, found[:, :, 0], "s", None, None, {"vocabulary": VOCABULARY} | facts)
