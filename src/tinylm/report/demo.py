"""The demo's report: one HTML file that needs nothing outside itself.

Plots are SVG inside the page, so they stay sharp at any size and their words can be
searched. What the figures say is put in words first, and the words follow the figures
wherever they fall: no sentence here supposes that pre-training or the committee won.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinylm.infer.latency import Latency
from tinylm.model.config import ModelConfig
from tinylm.report.format import mean_deviation, signed_mean_deviation
from tinylm.report.page import write_page
from tinylm.report.plots import (
    accuracy_plot,
    confusion_plot,
    finetuning_plot,
    label_plot,
    latency_plot,
)
from tinylm.text.coverage import Coverage
from tinylm.train.finetune import Finetuned


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
    with_pretraining: list[Finetuned]
    without: list[Finetuned]

    @property
    def gaps(self) -> np.ndarray:
        """Accuracy with minus accuracy without pre-training, of trials with one seed, `[trials]`."""
        pairs = zip(self.with_pretraining, self.without, strict=True)
        return np.array([a.accuracy - b.accuracy for a, b in pairs])


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
        tfidf: accuracy of TF-IDF with logistic regression on the same split.
        latency: of "deep", "member" (the first) and "committee".
        seconds: of the whole demo.
        train_texts: number of labelled texts.
    """

    label_names: list[str]
    test_labels: np.ndarray
    coverage: Coverage
    deep: Trained
    members: list[Trained]
    committee: list[float]
    committee_logits: np.ndarray
    tfidf: float
    latency: dict[str, Latency]
    seconds: float
    train_texts: int


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
        results=results,
        headline=headline(results),
        findings=findings(results),
        rows=_rows(results),
        accuracies=accuracies,
        timed=timed,
        recall=dict(zip(results.label_names, recall.tolist(), strict=True)),
        plots={
            "accuracy": accuracy_plot(accuracies, results.committee, results.tfidf),
            "finetuning": finetuning_plot(
                _test_accuracies(member.with_pretraining), _test_accuracies(member.without)
            ),
            "latency": latency_plot({name: (speed.p50, runs) for name, (speed, runs) in timed.items()}),
            "confusion": confusion_plot(confusion, results.label_names),
            "labels": label_plot(recall, results.label_names),
        },
    )


def headline(results: DemoResults) -> str:
    """What pre-training did to the deep model, in one line."""
    gaps = results.deep.gaps
    before = np.mean(_accuracies(results.deep.without))
    after = np.mean(_accuracies(results.deep.with_pretraining))
    if _within_deviation(gaps):
        return (
            "Pre-training made no clear difference to the deep model:"
            f" accuracy {before:.3f} without it, {after:.3f} with it"
        )
    verb = "raised" if np.mean(gaps) > 0 else "lowered"
    return f"Pre-training {verb} the deep model's accuracy from {before:.3f} to {after:.3f}"


def findings(results: DemoResults) -> list[str]:
    """The main comparisons, each one sentence that says so where a difference is small or unwelcome."""
    deep, tfidf = results.deep, results.tfidf
    deep_accuracies = _accuracies(deep.with_pretraining)
    latency = results.latency
    return [
        f"The deep model ({deep.name}), pre-trained on {results.coverage.paragraphs:,} Wikipedia openings:"
        f" gap {signed_mean_deviation(deep.gaps)} over {len(deep.gaps)} trials{_caution(deep.gaps)}.",
        "The shallow members: "
        + "; ".join(
            f"{member.name}, gap {signed_mean_deviation(member.gaps)}{_caution(member.gaps)}"
            for member in results.members
        )
        + ".",
        f"The soft committee of {len(results.members)} shallow members reaches"
        f" {mean_deviation(results.committee)},"
        f" {_compared(np.subtract(results.committee, deep_accuracies), 'the deep model')}."
        f" It takes {latency['committee'].p50:.2f} ms per text, the deep model {latency['deep'].p50:.2f} ms.",
        f"TF-IDF with logistic regression, trained on the same {results.train_texts:,} texts, reaches"
        f" {tfidf:.3f}. The committee is {_compared(np.subtract(results.committee, tfidf), 'TF-IDF')},"
        f" the deep model {_compared(np.subtract(deep_accuracies, tfidf), 'TF-IDF')}.",
    ]


class _Row(NamedTuple):
    """One line of the table of all models; None where nothing was measured."""

    name: str
    layers: str
    parameters: int
    without: Sequence[float] | None
    accuracy: Sequence[float]
    gaps: np.ndarray | None
    latency: Latency | None


def _rows(results: DemoResults) -> list[_Row]:
    def row(trained: Trained, latency: Latency | None) -> _Row:
        return _Row(
            trained.name,
            str(trained.config.layer_count),
            sum(weight.numel() for weight in trained.with_pretraining[0].model.parameters()),
            _accuracies(trained.without),
            _accuracies(trained.with_pretraining),
            trained.gaps,
            latency,
        )

    first, *others = results.members
    members = [row(first, results.latency["member"]), *(row(member, None) for member in others)]
    committee = _Row(
        f"soft committee of {len(members)}",
        " + ".join(str(member.layers) for member in members),
        sum(member.parameters for member in members),
        None,
        results.committee,
        None,
        results.latency["committee"],
    )
    return [row(results.deep, results.latency["deep"]), *members, committee]


def _accuracies(runs: Sequence[Finetuned]) -> list[float]:
    return [run.accuracy for run in runs]


def _test_accuracies(runs: Sequence[Finetuned]) -> np.ndarray:
    return np.array([[epoch["test_accuracy"] for epoch in run.history] for run in runs])


def _within_deviation(differences: np.ndarray) -> bool:
    return bool(abs(np.mean(differences)) <= np.std(differences, ddof=1))


def _caution(gaps: np.ndarray) -> str:
    return " (within one standard deviation, so no clear effect)" if _within_deviation(gaps) else ""


def _compared(differences: np.ndarray, rival: str) -> str:
    """Such as "0.012 below TF-IDF", for the mean of the trials' differences."""
    mean = np.mean(differences)
    words = f"{abs(mean):.3f} {'above' if mean > 0 else 'below'} {rival}"
    return words + (" (within one standard deviation)" if _within_deviation(differences) else "")
