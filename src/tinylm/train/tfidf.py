"""Training the TF-IDF member of a committee, see `model/tfidf.py`.

Its weights are those of a linear SVM for each label against the others, whose margins become the logits.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from tinylm.model.tfidf import MOST_CHARACTERS, TfidfModel, count_ngrams
from tinylm.ops.quantize import to_int8
from tinylm.text.tasks import copies_of

REGULARIZATION = 0.5  # scikit-learn's C, fixed beforehand
TOLERANCE = 0.01  # scikit-learn's 0.0001 changes no logit by more than 0.01 and takes twice as long
FOLDS = 10
# Characters of training texts times labels. Of more texts a sample is drawn, so that it takes a minute.
MOST_WORK = 500_000_000


@dataclass(frozen=True)
class TfidfTask:
    """The n-grams and labels of training texts.

    Attributes:
        features: TF-IDF, `float32 [texts, rows]`.
        idf: `float32 [rows]`, computed from these texts; 0 for rows that no text has.
        targets: `int64 [texts]`, or `[texts, labels]` of 0 and 1 for several labels per text.
        n_labels: labels.
        class_weights: `float32 [labels]`, or None for equal ones.
        weights: `float32 [texts]`, or None for equal ones.
    """

    features: sp.csr_matrix
    idf: np.ndarray
    targets: np.ndarray
    n_labels: int
    class_weights: np.ndarray | None = None
    weights: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> TfidfTask:
        """Some of the texts, with the idf of all."""
        weights = None if self.weights is None else self.weights[rows]
        return TfidfTask(
            self.features[rows], self.idf, self.targets[rows], self.n_labels, self.class_weights, weights
        )


def tfidf_task(
    texts: Sequence[str],
    targets: np.ndarray,
    n_labels: int,
    n_rows: int,
    class_weights: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> TfidfTask:
    """Count the n-grams of the training texts; `n_rows` as `count_ngrams`, the others as `TfidfTask`."""
    counts = count_ngrams(texts, n_rows)
    seen_in = counts.document_frequencies()
    idf = np.where(seen_in, np.log((1 + len(texts)) / (1 + seen_in)) + 1, 0).astype(np.float32)
    entries = counts.shares(idf), counts.row.astype(np.int32), counts.bounds[::2]
    features = sp.csr_matrix(entries, shape=(len(texts), n_rows))
    return TfidfTask(features, idf, targets, n_labels, class_weights, weights)


def work_of(texts: Sequence[str], n_labels: int) -> np.ndarray:
    """What training costs, `int64 [texts]`: the characters of each text times labels."""
    return np.minimum(np.array([len(text) for text in texts], np.int64), MOST_CHARACTERS) * n_labels


def train_tfidf(task: TfidfTask) -> TfidfModel:
    """Train a linear SVM for each label; rounded to 8 bits, as it is stored."""
    coefficients, bias = _svm(task)
    weight, scale = to_int8(coefficients)
    return TfidfModel(task.idf, weight, scale, bias)


def held_out_logits(task: TfidfTask, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Logits of training texts by models that were not trained on them, `float32 [texts, labels]`.

    Args:
        task: idf is computed from all its texts.
        parts: numbers (`int64`) of the texts that are held out at a time; texts of no part get 0.
    """
    out = np.zeros((len(task.targets), task.n_labels), np.float32)
    for held in parts:
        coefficients, bias = _svm(task.take(np.setdiff1d(np.arange(len(out)), held)))
        out[held] = task.features[held] @ coefficients + bias
    return out


def folds(texts: Sequence[str], seed: int) -> list[np.ndarray]:
    """Numbers (`int64`) of the texts of each fold; copies of a text are in the same one."""
    copies = list(copies_of(texts).values())
    order = np.random.default_rng([seed, 3]).permutation(len(copies)).tolist()
    parts = ([row for i in order[number::FOLDS] for row in copies[i]] for number in range(FOLDS))
    return [np.array(sorted(part)) for part in parts if part]


def _svm(task: TfidfTask) -> tuple[np.ndarray, np.ndarray]:
    """Weights `float32 [rows, labels]` and bias `float32 [labels]`."""
    n_labels, targets = task.n_labels, task.targets
    weight = np.zeros((task.features.shape[1], n_labels), np.float32)
    # The margin of a label that no text has, or that all have, is the one that an SVM aims at.
    bias = np.full(n_labels, -1, np.float32)
    class_weights = np.ones(n_labels) if task.class_weights is None else task.class_weights
    text_weights = np.ones(len(targets)) if task.weights is None else task.weights
    if targets.ndim == 1:
        each = class_weights[targets] * text_weights
        labels = np.unique(targets[each > 0])
        if len(labels) < 2:
            bias[labels] = 1
            return weight, bias
        coefficients, intercepts = _margins(task.features, targets, each)
        if len(labels) == 2:  # scikit-learn gives one margin, of the second label over the first
            coefficients, intercepts = (
                np.stack([-x, x], -1) / 2 for x in (coefficients[:, 0], intercepts[0])
            )
        weight[:, labels], bias[labels] = coefficients, intercepts
        return weight, bias
    for label, column in enumerate(targets.T):
        each = np.where(column > 0, class_weights[label], 1) * text_weights
        found = np.unique(column[each > 0])
        if len(found) < 2:
            bias[label] = 1 if found.any() else -1
            continue
        coefficients, intercepts = _margins(task.features, column > 0, each)
        weight[:, label], bias[label] = coefficients[:, 0], intercepts[0]
    return weight, bias


def _margins(
    features: sp.csr_matrix, classes: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[rows, margins]` and intercepts `[margins]`; for two classes scikit-learn has one margin."""
    svm = LinearSVC(C=REGULARIZATION, tol=TOLERANCE, random_state=0)
    if not weights.all():  # a text without weight would still count as a class
        features, classes, weights = features[weights > 0], classes[weights > 0], weights[weights > 0]
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        svm.fit(features, classes, weights)
    return svm.coef_.T, svm.intercept_
