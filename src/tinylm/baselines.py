"""What a report must show beside a tiny model: TF-IDF with a linear model.

Pre-training is what lifts a tiny model over it, so a table without it misleads.
"""

from __future__ import annotations

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from tinylm.text.tasks import Task


def tfidf_pipeline() -> Pipeline:
    """TF-IDF of words with logistic regression, settings fixed beforehand."""
    return make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, max_iter=1000))


def tfidf_accuracy(task: Task) -> float:
    """Test accuracy of `tfidf_pipeline` trained on the task's training texts."""
    pipeline = tfidf_pipeline().fit(task.train_texts, task.train_labels)
    return float(pipeline.score(task.test_texts, task.test_labels))
