"""The linear models that a report shows beside ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from helpers.fitting import labelled, several_labels
from tinylm.infer.baselines import (
    linear_svm,
    linear_svm_on,
    linear_svm_score,
    linear_svm_seconds,
    tfidf_accuracy,
)
from tinylm.text.tasks import Task, load_task

TRAIN = ["cow grass", "cow hay", "ship sea", "ship sail"] * 3
TOY = Task(
    name="toy",
    label_names=["farm", "harbour"],
    train_texts=TRAIN,
    train_labels=np.array([0, 0, 1, 1] * 3),
    test_texts=["the cow", "the ship", "a cow at sea in a ship", "hay"],
    test_labels=np.array([0, 1, 0, 0]),
    unusable={},
    notes=[],
    fingerprint="",
)


def test_words_are_learnt_and_mislead() -> None:
    assert tfidf_accuracy(TOY) == 0.75
    found = linear_svm_on(TOY)
    assert found is not None and found.accuracy == 0.75
    assert found.macro_f1 == pytest.approx((2 * 2 / (2 + 3) + 2 * 1 / (2 + 1)) / 2)  # 2 of 3 farms found


def test_it_is_the_svm_of_the_notes_by_hand() -> None:
    texts, names = labelled(60, ("farm", "sea", "town"))
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit(texts)
    characters = TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5)).fit(texts)

    def features(column: list[str]) -> np.ndarray:
        return np.hstack([words.transform(column).toarray(), characters.transform(column).toarray()])

    by_hand = LinearSVC(C=0.5, random_state=0).fit(features(texts), names)
    others, _ = labelled(40, ("farm", "sea", "town"), seed=1)
    pipeline = linear_svm().fit(texts, names)
    np.testing.assert_allclose(
        pipeline.decision_function(others), by_hand.decision_function(features(others)), atol=0.02
    )


def test_word_order_counts() -> None:
    """Two labels with the same words in another order: only bigrams tell them apart."""
    texts = ["dog bites man", "man bites dog"] * 20
    found = linear_svm_score(texts, np.array([0, 1] * 20), texts[:2], np.array([0, 1]))
    assert found is not None and found.accuracy == 1


def test_several_labels_per_text() -> None:
    texts, topics = several_labels(200)
    targets = np.array(
        [[float(name in row) for name in ("farm", "sea", "town")] for row in topics], np.float32
    )
    found = linear_svm_score(texts[:150], targets[:150], texts[150:], targets[150:])
    assert found is not None and 0.8 < found.accuracy <= 1 and found.macro_f1 > 0.9
    # All of a text's labels must be right.
    flipped = targets[150:].copy()
    flipped[:, 0] = 1 - flipped[:, 0]
    worse = linear_svm_score(texts[:150], targets[:150], texts[150:], flipped)
    assert worse is not None and worse.accuracy <= 1 - found.accuracy + 1e-9
    both = linear_svm(multi_label=True).fit(texts, targets).predict(["the cow meets the ship", "it is"])
    assert both.tolist() == [[1, 1, 0], [0, 0, 0]]


def test_neither_endless_texts_nor_many_labels_take_long() -> None:
    assert linear_svm_seconds(["short text"] * 1000, 2) < 0.1
    assert linear_svm_seconds(["short text"] * 20_000, 10_000) > 60
    assert linear_svm_seconds(["x" * 10_000_000] * 10, 2) < 1
    end = [" ".join(["word"] * 10_000) + " " + name for name in ("left", "right")] * 10
    labels = np.array([0, 1] * 10)
    unread = linear_svm_score(end, labels, end, labels)
    assert unread is not None and unread.accuracy == 0.5  # the rival, too, reads no more than the beginning


def test_texts_without_a_word_have_no_baseline() -> None:
    emoji = ["\N{SNOWMAN}", "\N{CLOUD}"] * 4
    assert linear_svm_score(emoji, np.array([0, 1] * 4), emoji, np.array([0, 1] * 4)) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        ("agnews", None, 0.887),
        ("dbpedia", None, 0.939),
        ("fewrel", [5, 10, 11, 16, 17, 25, 27, 33, 36, 39], 0.820),
    ],
)
def test_its_accuracy_on_real_data(
    task: str, labels: list[int] | None, expected: float, data_folder: Path
) -> None:
    found = linear_svm_on(load_task(task, labels=labels))
    assert found is not None and found.accuracy == pytest.approx(expected, abs=0.0006)
