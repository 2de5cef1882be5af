"""Training the TF-IDF member of a committee, see `model/tfidf.py`."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from torch import Tensor

from tinylm.model.config import TfidfConfig
from tinylm.model.tfidf import TfidfClassifier
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.finetune import EncodedTask

REGULARIZATION = 20.0  # scikit-learn's C, fixed beforehand: from 5 to 80 it hardly matters
STEPS = 300
# Training texts times labels. Of more texts a sample is drawn, so that it takes seconds.
MOST_WORK = 2_000_000


def train_tfidf(
    task: EncodedTask,
    tokenizer: Tokenizer,
    max_tokens: int,
    class_weights: np.ndarray | None,
    seed: int,
    most_work: int = MOST_WORK,
) -> TfidfClassifier:
    """Logistic regression on the TF-IDF of the training texts.

    Args:
        task: the training part, weighted by `train_weights`; labels `int64 [texts]`, or
            `float32 [texts, labels]` of 0 and 1.
        tokenizer: the one that encoded it.
        max_tokens: texts are cut to this many tokens.
        class_weights: `float32 [labels]`, or None for equal ones.
        seed: of the texts that are drawn where there are too many.
        most_work: texts times labels at most.
    """
    texts, labels, text_weights = task.train, task.train_labels, task.train_weights
    if (most := max(1, most_work // task.n_labels)) < len(texts):
        rows = np.sort(np.random.default_rng(seed).permutation(len(texts))[:most])
        texts, labels = texts.take(rows), labels[rows]
        text_weights = None if text_weights is None else text_weights[rows]
    counts = count_tokens(texts, tokenizer, max_tokens)
    seen_in = np.bincount(counts.indices, minlength=len(tokenizer))
    idf = np.log((1 + len(texts)) / (1 + seen_in)) + 1
    idf[tokenizer.special_ids] = 0
    counts.data = 1 + np.log(counts.data)
    features = normalize(counts @ sp.diags(idf))
    model = TfidfClassifier(TfidfConfig(vocab_size=len(tokenizer), max_tokens=max_tokens), task.n_labels)
    each = np.ones(task.n_labels, np.float32) if class_weights is None else class_weights
    # For each regression: the labels it is for, the class of each text, the weight of each text.
    if labels.ndim == 1:
        regressions = [(np.unique(labels), labels, each[labels])]
    else:
        regressions = [
            (np.array([label]), column, np.where(column > 0, each[label], 1))
            for label, column in enumerate(labels.T)
        ]
    with torch.no_grad():
        model.idf.copy_(torch.from_numpy(idf))
        model.token_weights.weight.zero_()
        for columns, classes, weights in regressions:
            if text_weights is not None:
                weights = weights * text_weights
            if len(np.unique(classes)) < 2:
                continue  # a label that no text has, or all have: its weights stay 0
            weight, bias = _regression(features, classes, weights)
            if len(columns) == 2:  # scikit-learn gives one logit, of the second label over the first
                weight, bias = torch.cat([-weight, weight], 1) / 2, torch.cat([-bias, bias]) / 2
            model.token_weights.weight[:, columns], model.bias[columns] = weight, bias
    return model.eval()


def count_tokens(texts: TokenIds, tokenizer: Tokenizer, max_tokens: int) -> sp.csr_matrix:
    """How often each text holds each token, `float64 [texts, vocab]`; special tokens do not count."""
    position = np.arange(len(texts.ids)) - np.repeat(texts.offsets[:-1], texts.lengths)
    kept = (position < max_tokens - 1) & ~np.isin(texts.ids, tokenizer.special_ids)
    text = np.repeat(np.arange(len(texts)), texts.lengths)[kept]
    ones = np.ones(len(text))
    counts = sp.csr_matrix((ones, (text, texts.ids[kept])), shape=(len(texts), len(tokenizer)))
    counts.sum_duplicates()
    return counts


def _regression(features: sp.csr_matrix, classes: np.ndarray, weights: np.ndarray) -> tuple[Tensor, Tensor]:
    """Weights `[tokens, logits]` and bias `[logits]`; one logit for two classes, as in scikit-learn."""
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        fitted = LogisticRegression(C=REGULARIZATION, max_iter=STEPS).fit(features, classes, weights)
    return torch.from_numpy(fitted.coef_.T).float(), torch.from_numpy(fitted.intercept_).float()
