"""Weights of members against a search over all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import expit, log_softmax
from sklearn.metrics import log_loss

from tinylm.infer.calibration import (
    SHARES_EXPECTATION,
    SIZE_EXPECTATION,
    SMALLEST_WEIGHT,
    cross_entropy,
    fit_weights,
)

GRID = np.linspace(SMALLEST_WEIGHT, 2, 41)


def members_of(texts: int, several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a good member, a weak one and one that is nothing but noise, and the targets."""
    chance = np.random.default_rng(1)
    noise = chance.normal(size=(3, texts, 4))
    truth = chance.uniform(size=(texts, 4)) < 0.4 if several else np.eye(4)[chance.integers(0, 4, texts)]
    logits = noise * np.array([1, 2, 2])[:, None, None] + truth * np.array([2, 1, 0])[:, None, None]
    return logits, truth.astype(np.float32) if several else truth.argmax(1)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("texts", [0, 3, 400, 4000])
def test_weights_are_the_best_of_all(texts: int, several: bool) -> None:
    logits, targets = members_of(texts, several)
    expected = np.array([0.2, 0.3, 0.5])

    def loss(weights: np.ndarray) -> float:
        # Of the triangle that both make with the origin, one leg is along `expected`.
        along = (weights @ expected / (expected @ expected) - 1) ** 2 * (expected @ expected)
        across = ((weights - expected) ** 2).sum() - along
        away = SIZE_EXPECTATION / 2 * along + SHARES_EXPECTATION / 2 * across
        return texts * cross_entropy(np.tensordot(weights, logits, 1), targets) + float(away)

    weights = fit_weights(logits, targets, expected)
    best = min(loss(np.array(each)) for each in itertools.product(GRID[::2], GRID[::2], GRID[::2]))
    assert loss(weights) <= best + 1e-6
    if not texts:
        np.testing.assert_allclose(weights, expected)
    if texts == 4000:
        assert weights[0] > 2 * weights[1] and weights[2] < 0.15
        logits[2] *= -5  # a member that errs keeps the smallest weight, and its own decisions
        logits[2] -= 3 * logits[0]
        assert fit_weights(logits, targets, expected)[2] == SMALLEST_WEIGHT or several


def test_cross_entropy() -> None:
    logits, targets = members_of(50, several=False)
    probabilities = np.exp(log_softmax(logits[0], axis=1))
    assert cross_entropy(logits[0], targets) == pytest.approx(
        log_loss(targets, probabilities, labels=range(4))
    )
    logits, targets = members_of(50, several=True)
    each = [log_loss(targets[:, i], expit(logits[0, :, i])) for i in range(4)]
    assert cross_entropy(logits[0], targets) == pytest.approx(np.mean(each))
    assert cross_entropy(logits[0, :0], targets[:0]) == 0
