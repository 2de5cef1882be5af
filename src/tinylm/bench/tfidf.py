"""Suite `tfidf`: how long the linear SVM of the TF-IDF member learns, on one core, and liblinear beside it.

Both learn the same TF-IDF of words and characters, with the same penalties: for the reference, scikit-learn's
`LinearSVC`, which is liblinear, the features of each label are scaled for that. Its tolerance is one at which
it makes as few passes as it can without other predictions.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from tinylm.bench.measure import SECONDS, Machine, Measured, summarise
from tinylm.model.tfidf import count_ngrams
from tinylm.ops.linear_svm import ease_by_naive_bayes, train_linear_svm
from tinylm.system.paths import find_local
from tinylm.text.tasks import Task, load_task
from tinylm.train.tfidf import REGULARIZATION, TOLERANCE, TfidfTask

CASES = ("vital-topics", "fewrel-10", "fewrel-64")
THREADS = 1
ROWS = 2**18  # of the table of n-grams
REFERENCE_TOLERANCE = 0.01


def task_of(case: str) -> Task | None:
    """The labelled texts of a case; None where FewRel is not at hand."""
    if case == "vital-topics":
        return load_task("vital-topics")
    if find_local("fewrel/train_wiki.json") is None:
        return None
    return load_task("fewrel", labels=range(10) if case == "fewrel-10" else None)


def measure_case(name: str, rounds: int, machine: Machine) -> list[Measured]:
    """Measure one of CASES; nothing where its texts are not at hand."""
    task = task_of(name)
    if task is None:
        return []
    labels = len(task.label_names)
    counted = TfidfTask(count_ngrams(task.train_texts, ROWS), task.train_labels, labels)
    features = counted.features(counted.idf(np.arange(len(task.train_labels))))
    is_label = task.train_labels[:, None] == np.arange(labels)
    cost = np.full(len(is_label), REGULARIZATION, np.float32)
    found, expected = [], np.empty(is_label.shape)

    def ours() -> None:
        found.append(train_linear_svm(features, is_label, cost, np.ones(labels, np.float32), TOLERANCE))

    def liblinear() -> None:
        scales = np.sqrt(ease_by_naive_bayes(features, is_label, cost))
        for label in range(labels):
            scaled = features.multiply(scales[:, label]).tocsr()
            svm = LinearSVC(C=REGULARIZATION, tol=REFERENCE_TOLERANCE, random_state=0)
            with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
                svm.fit(scaled, is_label[:, label])
            expected[:, label] = svm.decision_function(scaled)

    ours()  # compiles
    seconds = np.array([[_seconds(ours), _seconds(liblinear)] for _ in range(rounds)])
    weight, intercept = found[-1]
    difference = np.abs(features @ weight + intercept - expected).max()
    details = {"texts": len(is_label), "labels": labels, "largest difference": round(float(difference), 4)}
    return [summarise(name, seconds, SECONDS, None, None, details)]


def _seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
