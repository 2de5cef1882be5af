# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# (numba compiles functions that carry no types)
"""A linear SVM for each of many labels against the others, trained for all of them at once.

The problem is that of scikit-learn's `LinearSVC` (squared hinge loss, the intercept regularised like a
weight) but for the penalty, see `ease_by_naive_bayes`, and so is the method, dual coordinate descent (Hsieh
et al. 2008). liblinear goes through the texts label after label, and one entry of a text after the other.
Here an entry of a text is multiplied by a row of weights, one for each label, which a processor does for many
labels in one instruction: the more labels, the faster.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from tinylm.ops.scalar import ONE, ZERO, f4, kernel
from tinylm.ops.threads import parallel

BLOCK = 32  # labels that are trained together; blocks are trained side by side
MOST_PASSES = 1000  # over the texts, as in scikit-learn
SMALLEST = np.float32(1e-12)
SMOOTHING = np.float32(0.5)  # texts that each row is taken to be in besides, with and without a label


def train_linear_svm(
    features: sp.csr_matrix,
    is_label: np.ndarray,
    cost: np.ndarray,
    positive: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Train the SVMs of all labels.

    A weight w of a label is penalised by w^2 / (2 ease), where LinearSVC penalises it by w^2 / 2.

    Args:
        features: `float32 [texts, rows]`.
        is_label: `bool [texts, labels]`; each label has texts with it and texts without it.
        cost: scikit-learn's C times the weight of each text, `float32 [texts]`, above 0.
        positive: what this is multiplied by for the texts that have a label, `float32 [labels]`, above 0.
        tolerance: training ends when no margin was further than this from where it has to be.

    Returns:
        Weights, `float32 [rows, labels]`, and intercepts, `float32 [labels]`.
    """
    texts, rows = features.shape
    labels = is_label.shape[1]
    # The most frequent rows first: most entries of a text are then close together in memory.
    by_frequency = np.argsort(-np.bincount(features.indices, minlength=rows), kind="stable")
    features = features[:, by_frequency]
    features.sort_indices()
    entries = features.data, features.indices, features.indptr.astype(np.int64)
    squared = features.power(2)
    weight, intercept = np.zeros((rows, labels), np.float32), np.zeros(labels, np.float32)

    def train(part: int, first: int, end: int) -> None:
        for block in range(first, end):
            chosen = slice(block * BLOCK, (block + 1) * BLOCK)
            side = np.where(is_label[:, chosen], np.int8(1), np.int8(-1))
            dual = np.zeros(side.shape, np.float32)
            # Arrays of their own, whose rows are dense in memory.
            w, b = weight[:, chosen].copy(), intercept[chosen].copy()
            ease = ease_by_naive_bayes(features, is_label[:, chosen], cost)
            squares = squared @ ease + ONE
            random = np.random.default_rng(0)
            for _ in range(MOST_PASSES):
                order = random.permutation(texts)
                if (
                    _pass(*entries, ease, squares, side, cost, positive[chosen], order, dual, w, b)
                    <= tolerance
                ):
                    break
            weight[:, chosen], intercept[chosen] = w, b

    parallel(train, -(-labels // BLOCK))
    return weight[np.argsort(by_frequency)], intercept


def ease_by_naive_bayes(features: sp.csr_matrix, is_label: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """How easily each weight may become large: in proportion to what naive Bayes would give it.

    That is the absolute logarithm of how much more often a row is among those of the texts with the label
    than among those of the others, as in the NB-SVM of Wang and Manning (2012), who scale the features by it.
    So a rare word that only one label has counts at once, and a frequent one that all have must prove itself.

    Args:
        features: as in `train_linear_svm`.
        is_label: likewise.
        cost: how much each text counts, `float32 [texts]`.

    Returns:
        `float32 [rows, labels]`, with which texts have the same mean length as with 1.
    """
    if not features.nnz:
        return np.ones((features.shape[1], is_label.shape[1]), np.float32)
    counts = cost / cost.mean()
    has = features.sign().T
    seen = np.asarray(has @ counts)
    ease = has @ (is_label * counts[:, None])
    other = seen[:, None] - ease
    unseen = SMOOTHING * np.count_nonzero(seen == 0)  # the table has rows that no text uses
    for rows in (ease, other):
        rows += SMOOTHING
        rows /= rows.sum(0) - unseen
    ease /= other
    np.abs(np.log(ease, out=ease), out=ease)
    squares = np.bincount(features.indices, features.data**2, len(ease)).astype(np.float32)
    ease *= squares.sum() / np.maximum(squares @ ease, SMALLEST)  # no row may tell anything
    return np.asarray(ease)


@kernel
def _pass(data, column, begins, ease, squares, side, cost, positive, order, dual, weight, intercept):
    """Go through the texts once; returns the furthest that a margin was from where it has to be."""
    labels = len(intercept)
    margin, step = np.empty(labels, f4), np.empty(labels, f4)
    furthest = ZERO
    for text in order:
        entries = range(begins[text], begins[text + 1])
        for label in range(labels):
            margin[label] = intercept[label]
        for entry in entries:
            value, row = data[entry], weight[column[entry]]
            for label in range(labels):
                margin[label] += value * row[label]
        moved = False
        for label in range(labels):
            y = f4(side[text, label])
            softness = f4(0.5) / (cost[text] * (positive[label] if y > ZERO else ONE))
            curvature = squares[text, label] + softness
            now = dual[text, label]
            slope = y * margin[label] - ONE + softness * now
            change = max(now - slope / curvature, ZERO) - now
            furthest = max(furthest, abs(change) * curvature)
            dual[text, label] = now + change
            step[label] = y * change
            moved |= change != ZERO
        if moved:
            for label in range(labels):
                intercept[label] += step[label]
            for entry in entries:
                value, row, free = data[entry], weight[column[entry]], ease[column[entry]]
                for label in range(labels):
                    row[label] += value * free[label] * step[label]
    return furthest
