"""The TF-IDF member of a committee: how much of the text it learns from, and its temperature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinylm.fit import budget
from tinylm.fit.encode import Encoded
from tinylm.infer.calibration import cross_entropy, fit_temperature
from tinylm.infer.predictor import decide
from tinylm.model.tfidf import TfidfModel, count_ngrams
from tinylm.train.tfidf import (
    FOLDS,
    MOST_WORK,
    TfidfTask,
    folds,
    held_out_logits,
    train_tfidf,
    work_of,
)

# A label that the committee gave counts as much as this part of one that a person gave, and less where the
# committee is not sure.
TRUST = 0.5
# Share of the texts without labels that are not learned: the temperature is fitted on them.
HELD_OUT = 0.1


@dataclass(frozen=True)
class FittedTfidf:
    """The TF-IDF member and how good it is on texts that it has not seen.

    Attributes:
        model: divided by its temperature.
        validation_logits: of the validation texts, by models that were not trained on them.
        loss: cross-entropy of such logits.
    """

    model: TfidfModel
    validation_logits: np.ndarray
    loss: float


def fit_tfidf(encoded: Encoded) -> FittedTfidf | None:
    """Train the TF-IDF member and fit its temperature; None if the committee has none.

    Where members may learn the validation texts and the time is enough, it does: their logits come from
    models that did not.
    """
    n_rows = encoded.form.tfidf_rows
    if not n_rows:
        return None
    labelled, split, settings = encoded.labelled, encoded.split, encoded.settings
    n_labels = len(labelled.label_names)
    most = budget.affordable(settings.seconds, MOST_WORK, budget.TFIDF_WORK_PER_SECOND)
    random = np.random.default_rng([settings.seed, 4])
    order = np.concatenate([split.validation, random.permutation(split.train)])
    work = work_of([labelled.texts[i] for i in order.tolist()], n_labels).cumsum()
    used = np.sort(order[: max(len(split.validation) + 1, int((work <= most).sum()))])
    texts, targets = [labelled.texts[i] for i in used.tolist()], labelled.targets[used]
    weights = None if labelled.weights is None else labelled.weights[used]
    counts = count_ngrams(texts, n_rows)
    task = TfidfTask(counts, targets, n_labels, labelled.class_weights, weights)
    validation = np.searchsorted(used, split.validation)
    if len(validation) < budget.TFIDF_CALIBRATION_TEXTS and (FOLDS + 1) * work[-1] <= most:
        parts = folds(texts, targets, settings.seed)
    else:
        parts = [validation if len(validation) else random.permutation(len(used))[: max(1, len(used) // 10)]]
    held = np.concatenate(parts)
    if 2 * work[-1] <= most:
        left_out = validation if encoded.everything is None else validation[:0]
        model = train_tfidf(task, np.setdiff1d(np.arange(len(used)), left_out))
        logits = held_out_logits(task, parts)
    else:
        model = train_tfidf(task, np.setdiff1d(np.arange(len(used)), held))
        logits = np.zeros((len(used), n_labels), np.float32)
        logits[held] = model.logits([texts[i] for i in held.tolist()])
    temperature = np.float32(fit_temperature(logits[held], targets[held]))
    logits /= temperature
    loss = cross_entropy(logits[held], targets[held])
    return FittedTfidf(model.cooled(float(temperature)), logits[validation], loss)


def retrain_tfidf(
    first: FittedTfidf, encoded: Encoded, probabilities: np.ndarray, thresholds: np.ndarray | None
) -> FittedTfidf:
    """The TF-IDF member again, from the training part and texts that the committee has labelled.

    Args:
        first: the member of the committee that labelled them; returned where the time is not enough for more.
        encoded: what it was trained on; its texts without labels are in random order.
        probabilities: that the committee gives them, `float32 [unlabelled, labels]`.
        thresholds: of the committee, see `decide`.
    """
    labelled, split, settings, unlabelled = (
        encoded.labelled, encoded.split, encoded.settings, encoded.unlabelled
    )  # fmt: skip
    n_labels, several = len(labelled.label_names), labelled.targets.ndim == 2
    own = [labelled.texts[i] for i in split.train.tolist()]
    work = work_of([*own, *unlabelled], n_labels).cumsum()
    most = budget.affordable(settings.seconds, MOST_WORK, budget.TFIDF_WORK_PER_SECOND)
    count = max(int((work <= most).sum()) - len(own), 0)
    held = int(HELD_OUT * count)
    if not held:
        return first
    unlabelled, probabilities = unlabelled[:count], probabilities[:count]
    decisions = decide(probabilities, thresholds)
    sure = np.maximum(probabilities, 1 - probabilities).mean(1) if several else probabilities.max(1)
    weights = np.ones(len(own)) if labelled.weights is None else labelled.weights[split.train]
    task = TfidfTask(
        count_ngrams([*own, *unlabelled], len(first.model.idf)),
        np.concatenate([labelled.targets[split.train], decisions if several else decisions.argmax(1)]),
        n_labels,
        labelled.class_weights,
        np.concatenate([weights, TRUST * sure]).astype(np.float32),
    )
    model = train_tfidf(task, np.arange(len(own) + count - held))
    # Labels drawn by the probabilities, not the most probable ones: it shall be as sure as the committee is.
    logits = model.logits(unlabelled[-held:])
    drawn = drawn_labels(probabilities[-held:], settings.seed, several=several)
    temperature = np.float32(fit_temperature(logits, drawn))
    validation = model.logits([labelled.texts[i] for i in split.validation.tolist()])
    loss = cross_entropy(logits / temperature, drawn)
    return FittedTfidf(model.cooled(float(temperature)), validation / temperature, loss)


def drawn_labels(probabilities: np.ndarray, seed: int, *, several: bool) -> np.ndarray:
    """Labels drawn by their probabilities.

    Args:
        probabilities: `float32 [texts, labels]`.
        seed: of the draw.
        several: whether a text may have several labels, each drawn for itself.

    Returns:
        `int64 [texts]`, or `float32 [texts, labels]` of 0 and 1.
    """
    random = np.random.default_rng([seed, 6])
    if several:
        return (random.random(probabilities.shape) < probabilities).astype(np.float32)
    up_to = probabilities.cumsum(1, dtype=np.float64)
    return np.asarray((up_to > up_to[:, -1:] * random.random((len(up_to), 1))).argmax(1))
