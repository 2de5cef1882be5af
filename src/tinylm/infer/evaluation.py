"""Figures of a committee on labelled texts, for `tinylm evaluate`, reports and model cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from tinylm.infer.calibration import reliability
from tinylm.infer.predictor import Predictor, decide


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction.

    Attributes:
        row: of the text, from 0.
        text: the text.
        truth: its label or labels.
        prediction: the label or labels that the committee predicts.
        confidence: how sure it was of what is wrong, 0 to 1.
    """

    row: int
    text: str
    truth: str
    prediction: str
    confidence: float


@dataclass(frozen=True)
class Evaluation:
    """Figures on labelled texts.

    Attributes:
        texts: their number.
        accuracy: share of texts with exactly the right label or labels.
        interval: of the accuracy, 95 % (Wilson).
        macro_f1: mean over the labels that occur, in truth or predictions.
        confusion: `int64 [truth, prediction]`; None with several labels per text.
        calibration_error: expected, over ten bins of confidence.
        bins: mean confidence, accuracy and number of predictions of each bin.
        mistakes: all wrong predictions, the surest first.
        low_coverage: number of texts whose predictions are guesses, see `Predictor`; None if unknown.
        rare_token_share: share of such tokens in a text, mean over texts; None if unknown.
    """

    texts: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    confusion: np.ndarray | None
    calibration_error: float
    bins: list[tuple[float, float, int]]
    mistakes: list[Mistake]
    low_coverage: int | None
    rare_token_share: float | None

    def summary(self) -> dict[str, Any]:
        """The figures that a record keeps, in a form that JSON can hold; no texts."""
        return {
            "texts": self.texts,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
            "low_coverage": self.low_coverage,
        }


def evaluate(
    committee: Predictor, texts: Sequence[str], targets: np.ndarray, logits: np.ndarray | None = None
) -> Evaluation:
    """Compare a committee's predictions with the truth.

    Args:
        committee: its labels are those of `targets`.
        texts: at least one.
        targets: `int64 [texts]`, or `[texts, labels]` of 0 and 1 for several labels per text.
        logits: `float32 [texts, labels]`, to evaluate instead of the committee's, which may have learnt
            from these texts.
    """
    probabilities = committee.probabilities_of(
        committee.decision_function(texts) if logits is None else logits
    )
    decisions = decide(probabilities, committee.thresholds)
    several = targets.ndim == 2
    truth = targets > 0 if several else np.eye(len(committee.label_names), dtype=bool)[targets]
    right = (decisions == truth).all(1)
    if several:  # every yes or no is a prediction
        sure = np.where(decisions, probabilities, 1 - probabilities)
        error, bins = reliability(sure.ravel(), (decisions == truth).ravel())
        wrong = np.where(decisions != truth, sure, 0).max(1)
        macro_f1 = f1_score(truth, decisions, average="macro", zero_division=0)
        confusion = None
    else:
        wrong = probabilities.max(1)
        error, bins = reliability(wrong, right)
        predicted = decisions.argmax(1)
        macro_f1 = f1_score(targets, predicted, average="macro", zero_division=0)
        confusion = np.zeros((truth.shape[1], truth.shape[1]), np.int64)
        np.add.at(confusion, (targets, predicted), 1)
    names = np.array(committee.label_names, dtype=object)

    def named(row: np.ndarray) -> str:
        return ", ".join(names[row]) or "(none)"

    mistakes = [
        Mistake(i, texts[i], named(truth[i]), named(decisions[i]), float(wrong[i]))
        for i in sorted(np.flatnonzero(~right).tolist(), key=lambda i: -wrong[i])
    ]
    shares = None if committee.rare is None else committee.rare_token_share(texts)
    return Evaluation(
        texts=len(texts),
        accuracy=float(right.mean()),
        interval=wilson(int(right.sum()), len(right)),
        macro_f1=float(macro_f1),
        confusion=confusion,
        calibration_error=error,
        bins=bins,
        mistakes=mistakes,
        low_coverage=None if shares is None else int(committee.low_coverage(texts).sum()),
        rare_token_share=None if shares is None else float(shares.mean()),
    )


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share, `right` of `total` (Wilson's score interval)."""
    from scipy.stats import binomtest  # slow to import, and a prediction does not need it

    low, high = binomtest(right, total).proportion_ci(method="wilson")
    return float(low), float(high)
