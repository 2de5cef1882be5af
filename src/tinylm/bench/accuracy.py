"""Suite `accuracy`: what `TinyTextClassifier` reaches within a time, beside linear models on the same splits.

A case is a task and a time, a round is a split: seed 42 is the paper's, others follow. Measured is the share
of test texts that are wrong. Nothing is chosen by it: settings are those of the recipe, all are reported.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import numpy as np

from tinylm.bench.measure import WRONG, Machine, Measured, summarise
from tinylm.bench.recipe.data import TEN
from tinylm.fit.estimator import TinyTextClassifier
from tinylm.infer.baselines import fasttext_accuracy, linear_svm_on
from tinylm.system.paths import find_local
from tinylm.text.tasks import Task, load_task

TASKS: dict[str, dict[str, Any]] = {
    "agnews": {"name": "agnews"},
    "dbpedia": {"name": "dbpedia"},
    "fewrel-10": {"name": "fewrel", "labels": TEN},
    "fewrel-64": {"name": "fewrel"},
}
MINUTES = (1, 5, 10, 20, 60)
CASES = {f"{task}-{minutes}min": (task, minutes) for task in TASKS for minutes in MINUTES}
CORPUS = "wikipedia/en_leads.parquet"  # the built-in sample where it is not there
FIRST_SEED = 42


@lru_cache
def split(task: str, seed: int) -> Task:
    """The paper's rows of a task, drawn with a seed."""
    return load_task(**TASKS[task], seed=seed)


@lru_cache
def rivals(task: str, seed: int) -> tuple[float, float]:
    """Test accuracy of the strong linear model and of fastText."""
    linear = linear_svm_on(split(task, seed))
    assert linear is not None
    return linear.accuracy, fasttext_accuracy(split(task, seed))


def measure_case(name: str, rounds: int, machine: Machine) -> Measured:
    """Measure one of CASES."""
    task, minutes = CASES[name]
    found: list[dict[str, Any]] = []
    corpus = find_local(CORPUS)
    for seed in range(FIRST_SEED, FIRST_SEED + rounds):
        texts, (linear, fasttext) = split(task, seed), rivals(task, seed)
        begin = time.monotonic()
        classifier = TinyTextClassifier(
            budget=f"{minutes}min", corpus=str(corpus) if corpus else "vital", random_state=seed
        )
        classifier.fit(texts.train_texts, texts.train_labels)
        seconds = time.monotonic() - begin
        members = classifier.committee_.member_logits(texts.test_texts)
        found.append(
            {
                "seed": seed,
                "accuracy": _accuracy(members.sum(0), texts),
                "members": [_accuracy(logits, texts) for logits in members],
                "linear_svm": linear,
                "fasttext": fasttext,
                "seconds": seconds,
                "paragraphs": classifier.fitted_.coverage.paragraphs,
                "milliseconds": classifier.fitted_.latency.p50,
            }
        )
    columns = ("accuracy", "linear_svm", "fasttext")
    wrong = np.array([[100 * (1 - one[column]) for column in columns] for one in found])
    details = {"corpus": CORPUS if corpus else "vital", "splits": found}
    return summarise(name, wrong, WRONG, None, "fastText", details)


def _accuracy(logits: np.ndarray, task: Task) -> float:
    return float(np.mean(logits.argmax(1) == task.test_labels))
