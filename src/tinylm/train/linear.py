"""Training the linear member of a committee, see `model/linear.py`."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from tinylm.model.linear import LinearClassifier, LinearConfig
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.finetune import EncodedTask

REGULARIZATION = 20.0  # scikit-learn's C, fixed beforehand: from 5 to 80 it hardly matters
STEPS = 300
# Training texts times labels; of more, this many are drawn, so that the time stays seconds.
MOST_WORK = 2_000_000


def train_linear(
    task: EncodedTask,
    tokenizer: Tokenizer,
    max_tokens: int,
    class_weights: np.ndarray | None,
    seed: int,
    most_work: int | None = None,
) -> LinearClassifier:
    """Logistic regression on the TF-IDF of the training texts.

    Args:
        task: its training part; labels `int64 [texts]`, or `float32 [texts, labels]` of 0 and 1.
        tokenizer: that encoded it.
        max_tokens: texts are cut there.
        class_weights: `float32 [labels]`, or None for equal ones.
        seed: of the texts that are drawn where there are too many.
        most_work: texts times labels at most, if less than usual.
    """
    texts, labels = task.train, task.train_labels
    if (most := max(1, min(MOST_WORK, most_work or MOST_WORK) // task.n_labels)) < len(texts):
        rows = np.sort(np.random.default_rng(seed).permutation(len(texts))[:most])
        texts, labels = texts.take(rows), labels[rows]
    counts = count_tokens(texts, tokenizer, max_tokens)
    seen_in = np.bincount(counts.indices, minlength=len(tokenizer))
    rarity = np.log((1 + len(texts)) / (1 + seen_in)) + 1
    rarity[tokenizer.special_ids] = 0
    counts.data = 1 + np.log(counts.data)
    features = normalize(counts @ sp.diags(rarity))
    model = LinearClassifier(LinearConfig(vocab_size=len(tokenizer), max_tokens=max_tokens), task.n_labels)
    with torch.no_grad():
        model.rarity.copy_(torch.from_numpy(rarity))
        model.votes.weight.zero_()
    if labels.ndim == 1:
        weights = None if class_weights is None else class_weights[labels]
        _fit(model, slice(None), features, labels, weights)
    else:
        for label in range(task.n_labels):
            answers = labels[:, label].astype(np.int64)
            weights = None if class_weights is None else np.where(answers, class_weights[label], 1)
            _fit(model, slice(label, label + 1), features, answers, weights)
    return model.eval()


def count_tokens(texts: TokenIds, tokenizer: Tokenizer, max_tokens: int) -> sp.csr_matrix:
    """How often each text holds each token, `float64 [texts, vocab]`; special tokens count nothing."""
    place = np.arange(len(texts.ids)) - np.repeat(texts.offsets[:-1], texts.lengths)
    kept = (place < max_tokens - 1) & ~np.isin(texts.ids, tokenizer.special_ids)
    text = np.repeat(np.arange(len(texts)), texts.lengths)[kept]
    ones = np.ones(len(text))
    counts = sp.csr_matrix((ones, (text, texts.ids[kept])), shape=(len(texts), len(tokenizer)))
    counts.sum_duplicates()
    return counts


def _fit(
    model: LinearClassifier,
    outputs: slice,
    features: sp.csr_matrix,
    labels: np.ndarray,
    weights: np.ndarray | None,
) -> None:
    """Set these outputs of the model; those of labels that no text has, or all have, stay 0."""
    found = np.unique(labels)
    if len(found) < 2:
        return
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        fitted = LogisticRegression(C=REGULARIZATION, max_iter=STEPS).fit(features, labels, weights)
    # Weights `[tokens, fields]`: one field for two labels, the second's over the first's.
    weight, bias = torch.from_numpy(fitted.coef_.T).float(), torch.from_numpy(fitted.intercept_).float()
    if outputs == slice(None) and len(found) == 2:
        weight, bias = torch.cat([-weight, weight], 1) / 2, torch.cat([-bias, bias]) / 2
    places = torch.arange(model.n_labels)[outputs] if outputs != slice(None) else torch.from_numpy(found)
    with torch.no_grad():
        model.votes.weight[:, places], model.bias[places] = weight, bias
