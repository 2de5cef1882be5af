"""Classifiers of texts in many languages, beside logistic regression on characters."""

from __future__ import annotations

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from helpers.languages import LANGUAGES, table
from tinylm import TinyTextClassifier
from tinylm.train.recipes import RECIPES

RECIPE = RECIPES["fast"].with_epochs(pretrain=1, finetune=2)


def fitted(language: str) -> TinyTextClassifier:
    classifier = TinyTextClassifier(
        corpus=None,
        recipe=RECIPE,
        vocabulary=1000,
        max_tokens=48,
        members=1,
        budget=None,
        n_jobs=1,
        random_state=0,
    )
    return classifier.fit(*table(language, 120, seed=0))


@pytest.mark.parametrize("language", LANGUAGES)
def test_as_accurate_as_logistic_regression_on_characters(language: str) -> None:
    test = table(language, 90, seed=1)
    rival = make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 2)), LogisticRegression())
    assert fitted(language).score(*test) >= rival.fit(*table(language, 120, seed=0)).score(*test) > 0.9
