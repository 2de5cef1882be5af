"""Suite `accuracy`: what `TinyTextClassifier` reaches within a time, beside linear models on the same splits.

A case is a task with the paper's training rows and a time, or with fewer rows of each label and a minute. A
round is a split: seed 42 is the paper's, others follow. Measured is the share of test texts that are wrong.
Nothing is chosen by it: settings are those of the recipe, all are reported.
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
MINUTES, ROWS = (1, 5, 10, 20, 60), (8, 32, 128)
# Task, minutes, and training rows of each label: None for the paper's.
CASES: dict[str, tuple[str, float, int | None]] = {
    f"{task}-{minutes}min": (task, minutes, None) for task in TASKS for minutes in MINUTES
} | {f"{task}-{rows}rows": (task, 1, rows) for task in ("agnews", "dbpedia") for rows in ROWS}
CORPUS = "wikipedia/en_leads.parquet"  # the built-in sample where it is not there
FIRST_SEED = 42


@lru_cache
def split(task: str, rows: int | None, seed: int) -> Task:
    """The rows of a task, drawn with a seed."""
    return load_task(**TASKS[task], train_per_label=rows, seed=seed)


@lru_cache
def rivals(task: str, rows: int | None, seed: int) -> tuple[float, float]:
    """Test accuracy of the strong linear model and of fastText."""
    texts = split(task, rows, seed)
    linear = linear_svm_on(texts)
    assert linear is not None
    return linear.accuracy, fasttext_accuracy(texts)


def measure_case(name: str, rounds: int, machine: Machine) -> Measured:
    """Measure one of CASES."""
    task, minutes, rows = CASES[name]
    found: list[dict[str, Any]] = []
    corpus = find_local(CORPUS)
    for seed in range(FIRST_SEED, FIRST_SEED + rounds):
        texts, (linear, fasttext) = split(task, rows, seed), rivals(task, rows, seed)
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
