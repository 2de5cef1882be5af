"""What a report must show beside a tiny model: TF-IDF with a linear model, and fastText.

Pre-training is what lifts a tiny model over it, so a table without it misleads.
"""

from __future__ import annotations

import re
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from tinylm.errors import UserError
from tinylm.text.tasks import Task

# Settings fixed beforehand, not tuned on any task: word bigrams as its authors advise for
# classification, and more epochs than their default because the tasks here are small.
FASTTEXT = {"lr": 0.5, "epoch": 50, "wordNgrams": 2, "bucket": 200_000, "dim": 50}
LABEL = "__label__"


def tfidf_pipeline() -> Pipeline:
    """TF-IDF of words with logistic regression, settings fixed beforehand."""
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
        pairs = zip(task.train_labels, task.train_texts, strict=True)
        file.write_text("".join(f"{LABEL}{label} {words(text)}\n" for label, text in pairs), encoding="utf-8")
        # On one thread, as several race for the weights and give another model every time.
        model = fasttext.train_supervised(str(file), verbose=0, thread=1, **FASTTEXT)
    answers = [int(model.predict(words(text))[0][0].removeprefix(LABEL)) for text in task.test_texts]
    return float(np.mean(np.equal(answers, task.test_labels)))
