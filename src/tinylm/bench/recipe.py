"""Suite `recipe`: what parts of the recipe `fast` bring to pre-training, in seconds and accuracy.

The same BERT-1 is pre-trained on `vital` for some epochs: with the recipe as it is, and with one part
changed. It is then fine-tuned on the topics of `vital`, whose test articles pre-training never meets.
A round is a seed. Measured are the seconds of pre-training on one thread; the details hold the test
accuracy of every seed, that without pre-training too.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import numpy as np

from tinylm.bench.measure import Machine, Measured, summarise
from tinylm.model.config import ModelConfig
from tinylm.model.heads import MaskedLanguageModel
from tinylm.system.processes import run_side_by_side
from tinylm.text.prepare import TokenizedCorpus, prepare
from tinylm.text.tasks import load_task
from tinylm.train.finetune import EncodedTask, encode_task, finetune
from tinylm.train.pretrain import pretrain
from tinylm.train.recipes import RECIPES, Recipe

RECIPE = RECIPES["fast"]
CORPUS, TASK = "vital", "vital-topics"
VOCABULARY, EPOCHS, HEADS = 16_000, 3, 2
AS_IT_IS, NONE = "as it is", "no pre-training"
CASES: dict[str, dict[str, Any]] = {
    "whole-vocabulary-in-the-loss": {"sampled_tokens": None},
    "random-word-embeddings": {"neighbour_window": None},
}


@lru_cache(maxsize=1)
def data(vocabulary: int) -> tuple[TokenizedCorpus, EncodedTask]:
    """Corpus and task, once in each process."""
    source = prepare(CORPUS, vocabulary=vocabulary, max_tokens=RECIPE.max_tokens)
    return source, encode_task(load_task(TASK), source.tokenizer, RECIPE.max_tokens)


def trial(recipe: Recipe, vocabulary: int, heads: int, pretrained: bool, seed: int) -> tuple[float, float]:
    """Seconds of pre-training and test accuracy."""
    source, task = data(vocabulary)
    config = recipe.model_config_for(len(source.tokenizer), layers=1, heads=heads)
    start: MaskedLanguageModel | ModelConfig = config
    begin = time.perf_counter()
    if pretrained:
        start, _ = pretrain(source.paragraphs, source.tokenizer, config, recipe, seed=seed)
    seconds = time.perf_counter() - begin
    return seconds, finetune(task, source.tokenizer, start, recipe, seed=seed, test_each_epoch=False).accuracy


@lru_cache
def trials(change: str, seeds: int) -> np.ndarray:
    """`float64 [seeds, 2]` of `trial`, with one of CASES, or else AS_IT_IS or NONE."""
    data(VOCABULARY)  # tokenizes once, before the processes do
    recipe = RECIPE.with_epochs(pretrain=EPOCHS).model_copy(update=CASES.get(change, {}))
    jobs = [(recipe, VOCABULARY, HEADS, change != NONE, seed) for seed in range(seeds)]
    return np.array(list(run_side_by_side(trial, jobs)))


def measure_case(name: str, rounds: int, machine: Machine) -> Measured:
    """Measure one of CASES."""
    found = {change: trials(change, rounds) for change in (AS_IT_IS, name, NONE)}
    accuracy = {change: np.round(column[:, 1], 4).tolist() for change, column in found.items()}
    seconds = np.stack([found[AS_IT_IS][:, 0], found[name][:, 0]], axis=1)
    details = {"vocabulary": VOCABULARY, "epochs": EPOCHS, "accuracy": accuracy}
    return summarise(name, seconds, "s", None, None, details)
