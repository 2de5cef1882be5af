"""The demo's report: one HTML file that needs nothing outside itself.

Plots are SVG inside the page, so they stay sharp at any size and their words can be
searched. Sentences in front of the figures say what these show. The sentences depend on the
figures: none supposes that pre-training or the committee has won.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from tinylm.fit.early_stopping import FinetuningLog
from tinylm.infer.baselines import LINEAR_SVM, Score
from tinylm.infer.latency import Latency
from tinylm.model.config import ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.report.format import count, mean_deviation, number, signed_mean_deviation, two_digits
from tinylm.report.page import write_page
from tinylm.report.plots import (
    accuracy_plot,
    confusion_plot,
    finetuning_plot,
    label_plot,
    latency_plot,
)
from tinylm.report.tables import figures_table
from tinylm.text.coverage import Coverage


@dataclass(frozen=True)
class Trial:
    """One fine-tuning.

    Attributes:
        model: the weights of its last epoch.
        log: epochs and validation scores.
        validation_logits: `float32 [validation texts, labels]`.
        test_logits: `float32 [test texts, labels]`.
        accuracy: on the test texts.
    """

    model: SequenceClassifier
    log: FinetuningLog
    validation_logits: np.ndarray
    test_logits: np.ndarray
    accuracy: float


@dataclass(frozen=True)
class Trained:
    """One architecture, pre-trained once and fine-tuned in several trials with and without it.

    Attributes:
        name: for tables, such as "BERT-1, 2 heads".
        config: the architecture.
        with_pretraining: one fine-tuning per trial from the pre-trained weights.
        without: one per trial from random weights, otherwise the same.
    """

    name: str
    config: ModelConfig
    with_pretraining: list[Trial]
    without: list[Trial]

    @property
    def gaps(self) -> np.ndarray:
        """Accuracy with minus accuracy without pre-training, of trials with one seed, `[trials]`."""
        return np.subtract(_accuracies(self.with_pretraining), _accuracies(self.without))


@dataclass(frozen=True)
class DemoResults:
    """Everything that the demo's tables and report show.

    Attributes:
        label_names: topics, in the order of the logits.
        test_labels: `int64 [test texts]`.
        coverage: W_S, T_W, T_C, T_M.
        deep: the deep model.
        members: the shallow ones.
        committee: accuracy of the members' summed logits, one per trial.
        committee_logits: of the first trial, `[test texts, labels]`.
        calibration_error: of that committee's probabilities on the test texts, expected.
        linear_svm: the strong linear model, trained on training and validation texts together.
        latency: of "deep", "member" (the first) and "committee".
        seconds: of the whole demo.
        train_texts: number of labelled texts that the encoders learn from.
        validation_texts: number of those that end their training and calibrate the committee.
    """

    label_names: list[str]
    test_labels: np.ndarray
    coverage: Coverage
    deep: Trained
    members: list[Trained]
    committee: list[float]
    committee_logits: np.ndarray
    calibration_error: float
    linear_svm: Score
    latency: dict[str, Latency]
    seconds: float
    train_texts: int
    validation_texts: int

    @property
    def rows(self) -> list[Row]:
        """The table of all models: the deep one, the members, their committee."""
        deep, first = (
            _row(self.deep, self.latency["deep"]),
            _row(self.members[0], self.latency["member"]),
        )
        members = [first, *(_row(member, None) for member in self.members[1:])]
        committee = Row(
            "soft committee",
            "+".join(member.layers for member in members),
            sum(member.parameters for member in members),
            None,
            self.committee,
            None,
            self.latency["committee"],
        )
        return [deep, *members, committee]

    def table(self) -> Table:
        """The accuracies, for the terminal."""
        title = f"Topic of an article: accuracy on {count(len(self.test_labels))} held-out articles"
        columns = ("layers", "no pre-\ntraining", "pre-trained", "gap", "ms")
        table = figures_table(title, "model", columns)
        for row in self.rows:
            table.add_row(
                row.name,
                row.layers,
                mean_deviation(row.without or []),
                mean_deviation(row.accuracy),
                signed_mean_deviation([] if row.gaps is None else row.gaps),
                two_digits(row.latency.p50) if row.latency else "",
            )
        table.add_section()
        table.add_row(LINEAR_SVM, "", number(self.linear_svm.accuracy))
        return table

    def figures(self) -> dict[str, Any]:
        """The figures of the tables, for `tinylm.json`."""
        return {
            "coverage": asdict(self.coverage),
            "models": {
                trained.name: {
                    "with_pretraining": _accuracies(trained.with_pretraining),
                    "without": _accuracies(trained.without),
                    "gap": trained.gaps.tolist(),
                    "epochs_kept": [trial.log.kept for trial in trained.with_pretraining],
                    "epochs_kept_without": [trial.log.kept for trial in trained.without],
                }
                for trained in [*self.members, self.deep]
            },
            "committee": self.committee,
            "calibration_error": self.calibration_error,
            "linear_svm": asdict(self.linear_svm),
            "latency_ms": {name: asdict(latency) for name, latency in self.latency.items()},
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Row:
    """One line of the table of all models; None where nothing was measured."""

    name: str
    layers: str
    parameters: int
    without: Sequence[float] | None
    accuracy: Sequence[float]
    gaps: np.ndarray | None
    latency: Latency | None


def _row(trained: Trained, latency: Latency | None) -> Row:
    return Row(
        trained.name,
        str(trained.config.layer_count),
        sum(weight.numel() for weight in trained.with_pretraining[0].model.parameters()),
        _accuracies(trained.without),
        _accuracies(trained.with_pretraining),
        trained.gaps,
        latency,
    )


def write_demo_report(results: DemoResults, path: Path) -> None:
    """Write the report as one HTML file.

    Args:
        results: what the demo found.
        path: of the file; its folder must exist. The file appears when it is complete.
    """
    labels, predicted = results.test_labels, results.committee_logits.argmax(1)
    n_labels = len(results.label_names)
    confusion = np.zeros((n_labels, n_labels), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    recall = confusion.diagonal() / confusion.sum(1)

    trained = [results.deep, *results.members]
    member = results.members[0]
    accuracies = {
        model.name: (_accuracies(model.with_pretraining), _accuracies(model.without)) for model in trained
    }
    timed = {
        results.deep.name: (results.latency["deep"], accuracies[results.deep.name][0]),
        member.name: (results.latency["member"], accuracies[member.name][0]),
        "committee": (results.latency["committee"], results.committee),
    }
    write_page(
        path,
        "demo.html",
        {
            "accuracy": accuracy_plot(
                accuracies, results.committee, {"linear SVM": results.linear_svm.accuracy}
            ),
            "finetuning": finetuning_plot(_curves(member.with_pretraining), _curves(member.without)),
            "latency": latency_plot({name: (speed.p50, runs) for name, (speed, runs) in timed.items()}),
            "confusion": confusion_plot(confusion, results.label_names, "topic"),
            "labels": label_plot(recall, results.label_names),
        },
        results=results,
        headline=headline(results),
        findings=findings(results),
        accuracies=accuracies,
        timed=timed,
        recall=dict(zip(results.label_names, recall.tolist(), strict=True)),
        linear_svm=LINEAR_SVM,
    )


def headline(results: DemoResults) -> str:
    """What pre-training did to the deep model, in one line."""
    gaps = results.deep.gaps
    before = float(np.mean(_accuracies(results.deep.without)))
    after = float(np.mean(_accuracies(results.deep.with_pretraining)))
    if _within_deviation(gaps):
        return (
            "Pre-training made no clear difference to the deep model:"
            f" accuracy {number(before)} without it, {number(after)} with it"
        )
    verb = "raised" if np.mean(gaps) > 0 else "lowered"
    return f"Pre-training {verb} the deep model's accuracy from {number(before)} to {number(after)}"


def findings(results: DemoResults) -> list[str]:
    """The main comparisons, each one sentence that says so where a difference is small or unwelcome."""
    deep, baseline = results.deep, results.linear_svm.accuracy
    deep_accuracies = _accuracies(deep.with_pretraining)
    latency = results.latency
    return [
        f"The deep model ({deep.name}), pre-trained on {count(results.coverage.paragraphs)} Wikipedia"
        f" openings: gap {signed_mean_deviation(deep.gaps)} over {len(deep.gaps)} trials"
        f"{_caution(deep.gaps)}.",
        "The shallow members: "
        + "; ".join(
            f"{member.name}, gap {signed_mean_deviation(member.gaps)}{_caution(member.gaps)}"
            for member in results.members
        )
        + ".",
        f"The soft committee of {len(results.members)} shallow members reaches"
        f" {mean_deviation(results.committee)},"
        f" {_compared(np.subtract(results.committee, deep_accuracies), 'the deep model')}."
        f" It takes {two_digits(latency['committee'].p50)} ms per text, the deep model"
        f" {two_digits(latency['deep'].p50)} ms.",
        "A linear SVM on words and characters, trained on the same"
        f" {count(results.train_texts + results.validation_texts)} labelled texts, reaches"
        f" {number(baseline)}. The committee is {_compared(np.subtract(results.committee, baseline), 'it')},"
        f" the deep model {_compared(np.subtract(deep_accuracies, baseline), 'it')}.",
    ]


def _accuracies(trials: Sequence[Trial]) -> list[float]:
    return [trial.accuracy for trial in trials]


def _curves(trials: Sequence[Trial]) -> list[tuple[list[float], int]]:
    return [(trial.log.scores, trial.log.kept) for trial in trials]


def _within_deviation(differences: np.ndarray) -> bool:
    # Of a single trial nothing is known.
    return len(differences) < 2 or bool(abs(np.mean(differences)) <= np.std(differences, ddof=1))


def _caution(gaps: np.ndarray) -> str:
    return " (within one standard deviation, so no clear effect)" if _within_deviation(gaps) else ""


def _compared(differences: np.ndarray, rival: str) -> str:
    """Such as "0.012 below it", for the mean of the trials' differences."""
    mean = float(np.mean(differences))
    words = f"{number(abs(mean))} {'above' if mean > 0 else 'below'} {rival}"
    return words + (" (within one standard deviation)" if _within_deviation(differences) else "")
