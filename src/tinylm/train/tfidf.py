"""Training the TF-IDF member of a committee, see `model/tfidf.py`.

Its weights are those of a linear SVM for each label against the others, whose margins become the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from tinylm.model.tfidf import MOST_CHARACTERS, NgramCounts, TfidfModel
from tinylm.ops.linear_svm import train_linear_svm
from tinylm.ops.quantize import to_int8
from tinylm.text.tasks import copies_of

REGULARIZATION = 0.5  # scikit-learn's C, fixed beforehand
TOLERANCE = 0.2  # a smaller one changes no logit by more than 0.07 and takes up to half as long again
FOLDS = 10
# Finding the n-grams of a text, and going through them, take as long as learning this many labels does.
READING = 36
# Of more work, see `work_of`, a sample of the texts is drawn, so that a training takes half a minute.
MOST_WORK = 2_500_000_000


@dataclass(frozen=True)
class TfidfTask:
    """The n-grams and labels of training texts.

    Attributes:
        counts: n-grams of the texts.
        targets: `int64 [texts]`, or `[texts, labels]` of 0 and 1 for several labels per text.
        n_labels: labels.
        class_weights: `float32 [labels]`, or None for equal ones.
        weights: `float32 [texts]`, or None for equal ones.
    """

    counts: NgramCounts
    targets: np.ndarray
    n_labels: int
    class_weights: np.ndarray | None = None
    weights: np.ndarray | None = None

    def features(self, idf: np.ndarray) -> sp.csr_matrix:
        """TF-IDF, `float32 [texts, rows]`."""
        entries = self.counts.shares(idf), self.counts.row.astype(np.int32), self.counts.bounds[::2]
        return sp.csr_matrix(entries, shape=(len(self.targets), self.counts.n_rows))

    def idf(self, texts: np.ndarray) -> np.ndarray:
        """`float32 [rows]`, computed from the texts of these numbers; 0 for rows that none of them has."""
        chosen = np.zeros(len(self.targets), bool)
        chosen[texts] = True
        entries = np.repeat(chosen, np.diff(self.counts.bounds[::2]))
        seen_in = np.bincount(self.counts.row[entries], minlength=self.counts.n_rows)
        return np.where(seen_in, np.log((1 + len(texts)) / (1 + seen_in)) + 1, 0).astype(np.float32)


def work_of(texts: Sequence[str], n_labels: int) -> np.ndarray:
    """What training costs, `int64 [texts]`: the characters of each text times labels and READING."""
    characters = np.minimum(np.array([len(text) for text in texts], np.int64), MOST_CHARACTERS)
    return characters * (n_labels + READING)


def train_tfidf(task: TfidfTask, texts: np.ndarray | None = None) -> TfidfModel:
    """Train a linear SVM for each label; rounded to 8 bits, as it is stored.

    Args:
        task: texts and labels.
        texts: numbers (`int64`) of those that are trained on; all by default.
    """
    trained = _train(task, np.arange(len(task.targets)) if texts is None else texts)
    weight, scale = to_int8(trained.weight)
    return TfidfModel(trained.idf, weight, scale, trained.bias)


def held_out_logits(task: TfidfTask, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Logits of training texts by models that were not trained on them, `float32 [texts, labels]`.

    Args:
        task: texts and labels.
        parts: numbers (`int64`) of the texts that are held out at a time; texts of no part get 0.
    """
    out = np.zeros((len(task.targets), task.n_labels), np.float32)
    for held in parts:
        trained = _train(task, np.setdiff1d(np.arange(len(out)), held))
        # An n-gram that only texts held out have does not count, as one of new texts does not.
        out[held] = task.features(trained.idf)[held] @ trained.weight + trained.bias
    return out


def folds(texts: Sequence[str], targets: np.ndarray, seed: int) -> list[np.ndarray]:
    """Numbers (`int64`) of the texts of each fold, each label in all of them as equally as possible.

    A model that was trained without a text of a label has seen the label less often than the others, which
    matters where texts are few; so a fold holds one text of each label, or two, ... Copies of a text are in
    the same fold.

    Args:
        texts: all texts.
        targets: as in `TfidfTask`; several labels per text are not told apart.
        seed: of the draw.
    """
    label = np.zeros(len(texts), np.int64) if targets.ndim == 2 else targets
    copies = list(copies_of(texts).values())
    order = np.random.default_rng([seed, 3]).permutation(len(copies)).tolist()
    by_label: dict[int, list[list[int]]] = {}
    for rows in (copies[i] for i in order):
        by_label.setdefault(int(label[rows[0]]), []).append(rows)
    n_folds = min(FOLDS, max(map(len, by_label.values())))
    parts: list[list[int]] = [[] for _ in range(n_folds)]
    for group in by_label.values():
        for number, rows in enumerate(group):
            parts[number % n_folds] += rows
    return [np.array(sorted(part)) for part in parts]


@dataclass(frozen=True)
class _Trained:
    """A model in fp32: `idf [rows]`, `weight [rows, labels]`, `bias [labels]`."""

    idf: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


def _train(task: TfidfTask, texts: np.ndarray) -> _Trained:
    """Train on the texts of these numbers."""
    n_labels = task.n_labels
    class_weights = np.ones(n_labels) if task.class_weights is None else task.class_weights
    cost = np.ones(len(task.targets)) if task.weights is None else task.weights
    positive = class_weights
    if task.targets.ndim == 1:
        cost, positive = cost * class_weights[task.targets], np.ones(n_labels)
    texts = texts[cost[texts] > 0]
    idf, cost, targets = task.idf(texts), cost[texts], task.targets[texts]
    features = task.features(idf)[texts]
    is_label = targets > 0 if targets.ndim == 2 else targets[:, None] == np.arange(n_labels)
    known = is_label.any(0)
    always = known & is_label.all(0)
    labels = np.flatnonzero(known & ~always & (positive > 0))
    # Two labels of which each text has one are told apart by one margin, of the second over the first.
    opposite = targets.ndim == 1 and len(labels) == 2
    trained = labels[1:] if opposite else labels
    margins, intercepts = train_linear_svm(
        features,
        is_label[:, trained],
        np.float32(REGULARIZATION) * cost.astype(np.float32),
        positive[trained].astype(np.float32),
        TOLERANCE,
    )
    if opposite:
        margins, intercepts = (np.concatenate([-x, x], axis=-1) / 2 for x in (margins, intercepts))
    weight = np.zeros((len(idf), n_labels), np.float32)
    # The margin of a label that no text has, or that all have, is the one that an SVM aims at.
    bias = np.where(always, 1, -1).astype(np.float32)
    weight[:, labels], bias[labels] = margins, intercepts
    return _Trained(idf, weight, bias)
