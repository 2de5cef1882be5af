"""From logits to calibrated probabilities, and to decisions on several labels.

The sum of the logits of several members is over-confident. Dividing it by one number, the
temperature, corrects that without changing a decision (Guo et al. 2017). Giving each member a weight
of its own corrects it too, and lets a member that is worse than the others count less.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, softmax

BINS = 10
# Logarithm of the temperatures that are tried.
RANGE = (-3.0, 5.0)
# How far the weights of members keep to what is expected of them, about as strongly as this many texts say
# something else: their common size, and their shares in it. Validation texts say well how sure a committee
# may be; the shares with the smallest cross-entropy there are not those with the best accuracy elsewhere
# (docs/recipe.md, "How much each member counts").
SIZE_EXPECTATION, SHARES_EXPECTATION = 30.0, 300.0
SMALLEST_WEIGHT = 1e-3  # so that a member's own decisions are kept


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature with the smallest cross-entropy on texts that were not trained on.

    Args:
        logits: `[texts, labels]`, summed.
        targets: `int64 [texts]`, or `[texts, labels]` of 0 and 1 for several labels per text.

    Returns:
        A positive number; 1 without texts to fit it on.
    """
    if not len(logits):
        return 1.0
    logits = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return cross_entropy(logits / np.exp(log_temperature), targets)

    return float(np.exp(minimize_scalar(loss, bounds=RANGE, method="bounded").x))


def fit_weights(logits: np.ndarray, targets: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The weights of members whose sum has the smallest cross-entropy, on texts not trained on.

    Few texts say little: the weights are drawn to `expected`, their shares more than their common size.

    Args:
        logits: `[members, texts, labels]`.
        targets: as in `fit_temperature`.
        expected: `[members]`, the weights without any text.

    Returns:
        `float64 [members]`, all positive.
    """
    logits, expected = logits.astype(np.float64), np.maximum(expected, SMALLEST_WEIGHT)
    several = targets.ndim == 2
    truth = targets if several else np.eye(logits.shape[2])[targets]
    direction = expected / np.linalg.norm(expected)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        summed = np.tensordot(weights, logits, 1)
        wrong = (expit(summed) if several else softmax(summed, axis=1)) - truth
        texts = len(truth)
        away = weights - expected
        size = (away @ direction) * direction
        pull = SIZE_EXPECTATION * size + SHARES_EXPECTATION * (away - size)
        value = texts * cross_entropy(summed, targets) + pull @ away / 2
        scale = 1 / truth.shape[1] if several else 1
        return value, scale * np.tensordot(logits, wrong, 2) + pull

    bounds = [(SMALLEST_WEIGHT, None)] * len(logits)
    return np.asarray(minimize(loss, expected, jac=True, bounds=bounds, method="L-BFGS-B").x)


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean over texts, and over labels where a text may have several; 0 without texts.

    Args:
        logits: `[texts, labels]`.
        targets: as in `fit_temperature`.
    """
    if not len(logits):
        return 0.0
    if targets.ndim == 2:
        return float(np.mean(np.logaddexp(0, logits) - targets * logits))
    return float(-np.mean(log_softmax(logits, axis=1)[np.arange(len(targets)), targets]))


def fit_thresholds(logits: np.ndarray, targets: np.ndarray, temperature: float) -> np.ndarray:
    """The threshold of each label: the lowest probability at which a text has it, with the best F1 here.

    Args:
        logits: `[texts, labels]`, summed.
        targets: `[texts, labels]` of 0 and 1.
        temperature: the logits are divided by it.

    Returns:
        `float64 [labels]`; 0.5 for a label with fewer than five texts here, too few to choose by.
    """
    probabilities = expit(logits / temperature)
    thresholds = np.full(targets.shape[1], 0.5)
    for label in range(targets.shape[1]):
        positive = targets[:, label] > 0
        if positive.sum() < 5:
            continue
        order = np.argsort(-probabilities[:, label], kind="stable")
        ranked = probabilities[order, label]
        hits = np.cumsum(positive[order])
        f1 = 2 * hits / (np.arange(1, len(order) + 1) + positive.sum())
        f1[:-1][ranked[:-1] == ranked[1:]] = 0  # no threshold separates equal probabilities
        best = int(f1.argmax())
        # Half way to the next text, so that a probability a little lower still counts.
        below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
        thresholds[label] = (ranked[best] + below) / 2
    return thresholds


def reliability(confidence: np.ndarray, right: np.ndarray) -> tuple[float, list[tuple[float, float, int]]]:
    """How far confidence and accuracy are apart.

    Args:
        confidence: `[predictions]`, the probability of each.
        right: `bool [predictions]`.

    Returns:
        The expected calibration error over ten bins of equal width, and for each bin that is not
        empty its mean confidence, its accuracy and its number of predictions.
    """
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [
        (float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in (number == i for i in range(BINS))
        if inside.any()
    ]
    error = sum(abs(mean - share) * count for mean, share, count in bins) / max(len(confidence), 1)
    return error, bins
