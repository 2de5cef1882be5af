"""The linear SVM of many labels, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.svm import LinearSVC

from tinylm.ops import linear_svm as module
from tinylm.ops.linear_svm import train_linear_svm
from tinylm.system.processes import threads

TEXTS, ROWS, LABELS, C = 200, 50, 7, 0.5


def made_up() -> tuple[sp.csr_matrix, np.ndarray]:
    chance = np.random.default_rng(0)
    features = sp.random(TEXTS, ROWS, 0.2, "csr", np.float32, random_state=0)
    return features, (features @ chance.normal(size=(ROWS, LABELS)) > 0.3)


@pytest.mark.parametrize("block", [2, 32])
def test_weights_are_those_of_liblinear(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
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
    for label in range(LABELS):
        rival = LinearSVC(C=C, tol=1e-8, max_iter=100_000, random_state=0)
        rival.fit(features, is_label[:, label], each * np.where(is_label[:, label], positive[label], 1))
        np.testing.assert_allclose(weight[:, label], rival.coef_[0], atol=2e-3)
        np.testing.assert_allclose(intercept[label], rival.intercept_[0], atol=2e-3)
    assert np.ptp(weight) > 1


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
