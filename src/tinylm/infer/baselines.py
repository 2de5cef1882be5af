"""What a user could pick instead of a tiny model: linear models on TF-IDF, and fastText.

Their settings were fixed beforehand and are not tuned on any task. A report without them misleads:
a linear SVM on word and character n-grams trains in seconds and is hard to beat.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.svm import LinearSVC

from tinylm.errors import UserError
from tinylm.text.tasks import Task

# Its name in reports.
LINEAR_SVM = "linear SVM"
# Word bigrams as its authors advise for classification, and more epochs than their default because
# the tasks here are small.
FASTTEXT = {"lr": 0.5, "epoch": 50, "wordNgrams": 2, "bucket": 200_000, "dim": 50}
LABEL = "__label__"
# What the linear SVM reads of a text, and how fast: characters that one core vectorises in a second, and
# those times labels that it learns.
SVM_CHARACTERS = 20_000
SVM_VECTORISED, SVM_LEARNT = 1e6, 2.5e7


@dataclass(frozen=True)
class Score:
    """A baseline on test texts; with several labels per text, a text is right if all its labels are."""

    accuracy: float
    macro_f1: float


def linear_svm(*, multi_label: bool = False) -> Pipeline:
    """The strong linear model: a linear SVM on TF-IDF of words (1-2) and characters (2-5).

    Args:
        multi_label: labels are `[texts, labels]` of 0 and 1, and each gets an SVM of its own.
    """
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    characters = TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5))
    svm = LinearSVC(C=0.5, random_state=0)
    return make_pipeline(make_union(words, characters), OneVsRestClassifier(svm) if multi_label else svm)


def linear_svm_score(
    train_texts: Sequence[str],
    train_targets: np.ndarray,
    test_texts: Sequence[str],
    test_targets: np.ndarray,
) -> Score | None:
    """Train `linear_svm` on one split and test it on the other.

    Args:
        train_texts: what it learns from.
        train_targets: `int64 [texts]`, or `float32 [texts, labels]` of 0 and 1.
        test_texts: what it is tested on.
        test_targets: as `train_targets`.

    Returns:
        None where scikit-learn finds no word, as in texts of emoji alone.
    """
    several = train_targets.ndim == 2
    pipeline = linear_svm(multi_label=several)
    train_texts, test_texts = (
        [text[:SVM_CHARACTERS] for text in texts] for texts in (train_texts, test_texts)
    )
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of labels that are rare
            pipeline.fit(train_texts, train_targets.astype(np.int64))
    except ValueError as error:
        if "empty vocabulary" in str(error):
            return None
        raise
    predicted, truth = pipeline.predict(test_texts), test_targets.astype(np.int64)
    right = (predicted == truth).all(1) if several else predicted == truth
    macro_f1 = f1_score(truth, predicted, average="macro", zero_division=0)
    return Score(float(np.mean(right)), float(macro_f1))


def linear_svm_seconds(train_texts: Sequence[str], n_labels: int) -> float:
    """About how long `linear_svm_score` takes: ten thousand labels take minutes even of short texts."""
    characters = sum(min(len(text), SVM_CHARACTERS) for text in train_texts)
    return characters / SVM_VECTORISED + characters * n_labels / SVM_LEARNT


def linear_svm_on(task: Task) -> Score | None:
    """`linear_svm_score` on the split of a task."""
    return linear_svm_score(task.train_texts, task.train_labels, task.test_texts, task.test_labels)


def tfidf_pipeline() -> Pipeline:
    """TF-IDF of words with logistic regression, the weaker rival of the paper's stored results."""
    return make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, max_iter=1000))


def tfidf_accuracy(task: Task) -> float:
    """Test accuracy of `tfidf_pipeline` trained on the task's training texts."""
    pipeline = tfidf_pipeline().fit(task.train_texts, task.train_labels)
    return float(pipeline.score(task.test_texts, task.test_labels))


def fasttext_accuracy(task: Task) -> float:
    """Test accuracy of Facebook's fastText trained on the task's training texts.

    Raises:
        UserError: the package is not installed.
    """
    if find_spec("fasttext") is None:
        raise UserError(
            'the fastText baseline needs the package fasttext-community: pip install "tinylm[paper]".'
        )
    import fasttext

    def words(text: str) -> str:
        """Lower-case words, punctuation apart: fastText itself cuts at white space alone."""
        return " ".join(re.findall(r"\w+|[^\w\s]", text.lower()))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        # It learns in the order of the file: label after label, it would forget the first ones.
        order = np.random.default_rng(0).permutation(len(task.train_texts)).tolist()
        lines = [f"{LABEL}{task.train_labels[row]} {words(task.train_texts[row])}\n" for row in order]
        file.write_text("".join(lines), encoding="utf-8")
        # On one thread: several race for the weights and give a different model every time.
        model = fasttext.train_supervised(str(file), verbose=0, thread=1, **FASTTEXT)
    predicted = [int(model.predict(words(text))[0][0].removeprefix(LABEL)) for text in task.test_texts]
    return float(np.mean(np.equal(predicted, task.test_labels)))
