"""How good a committee is on labelled texts: what `tinylm evaluate`, reports and model cards tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from tinylm.infer.calibration import reliability
from tinylm.infer.committee import Committee

# Half of a text's tokens hardly seen in pre-training: the model guesses.
UNFAMILIAR = 0.5
Z = 1.959964  # normal quantile of a 95 % interval


@dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Attributes:
        row: of the text, from 0.
        text: the text.
        truth: its label or labels.
        answer: what the committee said.
        confidence: how sure it was of what is wrong, 0 to 1.
    """

    row: int
    text: str
    truth: str
    answer: str
    confidence: float


@dataclass(frozen=True)
class Evaluation:
    """Figures on labelled texts.

    Attributes:
        texts: their number.
        accuracy: share of texts with exactly the right label or labels.
        interval: of the accuracy, 95 % (Wilson).
        macro_f1: mean over the labels that occur, in truth or answers.
        confusion: `int64 [truth, answer]`; None with several labels per text.
        calibration_error: expected, over ten bins of confidence.
        bins: mean confidence, share of right answers and number of answers of each bin.
        mistakes: all wrong answers, the surest first.
        unfamiliar: number of texts half of whose tokens pre-training hardly saw; None if unknown.
        hardly_seen: share of all texts' tokens, mean over texts; None if unknown.
    """

    texts: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    confusion: np.ndarray | None
    calibration_error: float
    bins: list[tuple[float, float, int]]
    mistakes: list[Mistake]
    unfamiliar: int | None
    hardly_seen: float | None

    def summary(self) -> dict[str, Any]:
        """The figures that a record keeps, in a form that JSON can hold; no texts."""
        return {
            "texts": self.texts,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
            "unfamiliar": self.unfamiliar,
        }


def evaluate(committee: Committee, texts: Sequence[str], targets: np.ndarray) -> Evaluation:
    """Compare a committee's answers with the truth.

    Args:
        committee: its labels are those of `targets`.
        texts: at least one.
        targets: `int64 [texts]`, or `[texts, labels]` of 0 and 1 for several labels per text.
    """
    probabilities = committee.probabilities(texts)
    given = committee.given(probabilities)
    several = targets.ndim == 2
    truth = targets > 0 if several else np.eye(len(committee.label_names), dtype=bool)[targets]
    right = (given == truth).all(1)
    if several:  # every yes or no is an answer
        sure = np.where(given, probabilities, 1 - probabilities)
        error, bins = reliability(sure.ravel(), (given == truth).ravel())
        wrong = np.where(given != truth, sure, 0).max(1)
        macro_f1 = f1_score(truth, given, average="macro", zero_division=0)
        confusion = None
    else:
        wrong = probabilities.max(1)
        error, bins = reliability(wrong, right)
        answers = given.argmax(1)
        macro_f1 = f1_score(targets, answers, average="macro", zero_division=0)
        confusion = np.zeros((truth.shape[1], truth.shape[1]), np.int64)
        np.add.at(confusion, (targets, answers), 1)
    names = np.array(committee.label_names, dtype=object)

    def named(row: np.ndarray) -> str:
        return ", ".join(names[row]) or "(none)"

    mistakes = [
        Mistake(i, texts[i], named(truth[i]), named(given[i]), float(wrong[i]))
        for i in sorted(np.flatnonzero(~right).tolist(), key=lambda i: -wrong[i])
    ]
    unseen = committee.hardly_seen(texts) if committee.token_counts is not None else None
    return Evaluation(
        texts=len(texts),
        accuracy=float(right.mean()),
        interval=wilson(int(right.sum()), len(right)),
        macro_f1=float(macro_f1),
        confusion=confusion,
        calibration_error=error,
        bins=bins,
        mistakes=mistakes,
        unfamiliar=None if unseen is None else int((unseen >= UNFAMILIAR).sum()),
        hardly_seen=None if unseen is None else float(unseen.mean()),
    )


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share, `right` of `total`."""
    share, z2 = right / total, Z * Z / total
    middle = (share + z2 / 2) / (1 + z2)
    half = Z / (1 + z2) * (share * (1 - share) / total + z2 / (4 * total)) ** 0.5
    return max(middle - half, 0.0), min(middle + half, 1.0)
