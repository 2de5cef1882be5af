"""The linear SVM of many labels, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.naive_bayes import MultinomialNB
from sklearn.svm import LinearSVC

from tinylm.ops import linear_svm as module
from tinylm.ops.linear_svm import ease_by_naive_bayes, train_linear_svm
from tinylm.system.processes import threads

TEXTS, ROWS, LABELS, C = 200, 50, 7, 0.5


def made_up() -> tuple[sp.csr_matrix, np.ndarray]:
    chance = np.random.default_rng(0)
    features = sp.random(TEXTS, ROWS, 0.2, "csr", np.float32, random_state=0)
    return features, (features @ chance.normal(size=(ROWS, LABELS)) > 0.3)


@pytest.mark.parametrize("block", [2, 32])
def test_weights_are_those_of_liblinear_on_scaled_features(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    features, is_label = made_up()
    before = features.copy()
    chance = np.random.default_rng(1)
    each, positive = chance.uniform(0.2, 2, TEXTS), chance.uniform(0.5, 3, LABELS)
    with threads(2):
        weight, intercept = train_linear_svm(
            features, is_label, np.float32(C * each), positive.astype(np.float32), 1e-5
        )
    assert (features != before).nnz == 0
    ease = ease_by_naive_bayes(features, is_label, each)
    for label in range(LABELS):
        rival = LinearSVC(C=C, tol=1e-8, max_iter=100_000, random_state=0)
        scale = np.sqrt(ease[:, label])
        rival.fit(
            features.multiply(scale),
            is_label[:, label],
            each * np.where(is_label[:, label], positive[label], 1),
        )
        np.testing.assert_allclose(weight[:, label], rival.coef_[0] * scale, atol=2e-3)
        np.testing.assert_allclose(intercept[label], rival.intercept_[0], atol=2e-3)
    assert np.ptp(weight) > 1


def test_ease_is_what_naive_bayes_would_give() -> None:
    features, is_label = made_up()
    each = np.random.default_rng(1).uniform(0.2, 2, TEXTS)
    ease = ease_by_naive_bayes(features, is_label, np.float32(7 * each))
    for label in range(LABELS):
        bayes = MultinomialNB(alpha=0.5).fit(features > 0, is_label[:, label], each / each.mean())
        ratio = np.abs(bayes.feature_log_prob_[1] - bayes.feature_log_prob_[0])
        np.testing.assert_allclose(ease[:, label] / ease[0, label], ratio / ratio[0], rtol=1e-4, atol=1e-5)
    lengths = features.multiply(features) @ ease
    np.testing.assert_allclose(lengths.mean(0), features.multiply(features).sum() / TEXTS, rtol=1e-5)


def test_a_text_without_entries_and_no_labels_at_all() -> None:
    features, is_label = made_up()
    none = train_linear_svm(
        features, is_label[:, :0], np.ones(TEXTS, np.float32), np.ones(0, np.float32), 0.1
    )
    assert none[0].shape == (ROWS, 0) and none[1].shape == (0,)
    empty = sp.csr_matrix((2, ROWS), dtype=np.float32)
    both = np.array([[True], [False]])
    weight, intercept = train_linear_svm(empty, both, np.ones(2, np.float32), np.ones(1, np.float32), 1e-5)
    # Each pulls the intercept to its own side as hard as the other.
    assert not weight.any() and abs(intercept[0]) < 1e-4
