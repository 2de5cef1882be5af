"""A committee of trained members, weighed and calibrated on the validation texts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tinylm.fit import budget
from tinylm.fit.encode import Encoded
from tinylm.fit.member import WITHOUT, TrainedEncoder
from tinylm.fit.tfidf_member import FittedTfidf
from tinylm.infer.calibration import cross_entropy, fit_temperature, fit_thresholds, fit_weights
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.infer.tfidf import TfidfMember
from tinylm.model.heads import SequenceClassifier
from tinylm.model.huggingface import round_weights
from tinylm.model.logits import logits_of
from tinylm.train.finetune import EncodedTask

# How much all encoders together are expected to count, and those that have read hardly any text: beside the
# TF-IDF member they know little that it does not (docs/recipe.md, "How much each member counts"). Less is
# expected of those with a larger loss than it has, by this power of the ratio.
SHARE, SHARE_OF_UNREAD, SHARE_POWER = 0.5, 0.1, 4


@dataclass(frozen=True)
class Calibrated:
    """A committee, and what it was made of.

    Attributes:
        committee: of copies of the encoders, and of the TF-IDF member.
        validation_logits: their sum on the validation texts, `float32 [texts, labels]`. Members may have
            learnt from these texts, but not the models whose logits are summed here.
        encoders, tfidf: its members, not yet weighed.
    """

    committee: Committee
    validation_logits: np.ndarray
    encoders: Sequence[TrainedEncoder]
    tfidf: FittedTfidf | None


def expected_share(arm: str, encoded: Encoded) -> float:
    """How much of the committee its encoders are expected to be, before they have learned from its labels.

    Args:
        arm: FINETUNING or WITHOUT pre-training.
        encoded: what they read; where they read no text but the labelled ones, and these are so few that
            validation cannot tell how good the encoders are, they are not trusted.
    """
    settings = encoded.settings
    read = settings.corpus is not None or settings.pretrained is not None or bool(settings.unlabelled)
    trusted = (read and arm != WITHOUT) or len(encoded.split.validation) >= budget.LEAST_CHOOSING
    return SHARE if trusted else SHARE_OF_UNREAD


def calibrate(
    encoders: Sequence[TrainedEncoder], tfidf: FittedTfidf | None, encoded: Encoded, share: float = SHARE
) -> Calibrated:
    """A committee of copies of the encoders, with weights and thresholds from the validation texts.

    Each member's logits are multiplied by its weight, so that the committee is a plain sum. The encoders err
    alike, so it is of all together that a share is expected. One that does not even know its training texts
    as well as the TF-IDF member knows new ones is expected to be worthless.
    """
    models = [copy.deepcopy(encoder.model) for encoder in encoders]
    if encoded.form.int8:  # what is measured is what will be stored
        for model in models:
            round_weights(model)
    task, targets, label_names = encoded.task, encoded.task.test_labels, encoded.labelled.label_names
    logits = [encoder.validation_logits for encoder in encoders]
    expected = np.ones(len(models))
    if tfidf is not None:
        logits.append(tfidf.validation_logits)
        known = np.array([_knows_its_texts(model, task, tfidf.loss) for model in models])
        share *= trust_in(np.mean(logits[:-1], axis=0), tfidf.validation_logits, targets)
        expected = np.append(known * share / max(known.sum(), 1), 1 - share)
    weights = fit_weights(np.stack(logits), targets, expected / expected.sum())
    for model, weight in zip(models, weights, strict=False):
        _multiply_logits(model, weight)
    summed = np.tensordot(weights, np.stack(logits), 1).astype(np.float32)
    thresholds = None
    if targets.ndim == 2:
        thresholds = np.full(len(label_names), 0.5)
        if len(summed):
            thresholds = fit_thresholds(summed, targets, temperature=1)
    members: list[Classifier | TfidfMember] = [
        Classifier.of(model, encoded.tokenizer, label_names) for model in models
    ]
    if tfidf is not None:
        members.append(TfidfMember(tfidf.model.cooled(1 / weights[-1]), label_names))
    committee = Committee(members, thresholds=thresholds, token_counts=encoded.token_counts)
    return Calibrated(committee, summed, encoders, tfidf)


def trust_in(encoders: np.ndarray, tfidf: np.ndarray, targets: np.ndarray) -> float:
    """How much of the share that is expected of encoders they keep: less, the larger their loss is.

    Args:
        encoders: their mean logits of the validation texts, `[texts, labels]`.
        tfidf: those of the TF-IDF member.
        targets: as in `fit_temperature`.

    Returns:
        From 0 to 1; 1 where their loss is not above the TF-IDF member's, or the texts are too few to tell.
    """
    if len(targets) < budget.LEAST_CHOOSING:
        return 1.0
    cooled = (logits / fit_temperature(logits, targets) for logits in (encoders, tfidf))
    theirs, its = (cross_entropy(logits, targets) for logits in cooled)
    return min(1.0, its / theirs) ** SHARE_POWER


def _knows_its_texts(model: SequenceClassifier, task: EncodedTask, loss: float) -> bool:
    """Whether an encoder predicts its training texts better than by chance and than with `loss`."""
    some = np.arange(len(task.train))[:: -(-len(task.train) // budget.TFIDF_CALIBRATION_TEXTS)]
    logits, targets = logits_of(model, task.train.take(some)), task.train_labels[some]
    by_chance = cross_entropy(np.zeros_like(logits), targets)
    return cross_entropy(logits, targets) < min(loss, budget.LEARNT * by_chance)


def _multiply_logits(model: SequenceClassifier, weight: float) -> None:
    with torch.no_grad():
        for part in model.output_weights:
            part.mul_(weight)
