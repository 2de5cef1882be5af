"""The page of a fit: what was trained, on what, and how good it is beside its rivals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from tinylm.fit.pipeline import Fitted
from tinylm.infer.evaluation import Evaluation
from tinylm.report.page import write_page
from tinylm.report.plots import (
    bar_plot,
    calibration_plot,
    comparison_plot,
    confusion_plot,
    history_plot,
    loss_plot,
)

MOST_LABELS = 25  # that a plot shows; the rest is summed up
SHOWN_MISTAKES = 12


@dataclass(frozen=True)
class FitResults:
    """Everything that the report of a fit shows.

    Attributes:
        name: of the folder.
        sources: the table and, where given, that of the test rows.
        label_names: in the order of the field.
        train_counts, test_counts: rows of each label.
        lengths: words of each training text.
        data_warnings: sentences on the data.
        fitted: the training.
        test: the committee on the test texts.
        member_accuracies: of each member alone, by its name.
        without: the committee without pre-training on the test texts, where it was asked for.
        tfidf: accuracy of TF-IDF with logistic regression; None where it cannot be had.
        seconds: of everything.
        budget: as it was given; None for the recipe's epochs.
    """

    name: str
    sources: tuple[str, str | None]
    label_names: list[str]
    train_counts: np.ndarray
    test_counts: np.ndarray
    lengths: np.ndarray
    data_warnings: list[str]
    fitted: Fitted
    test: Evaluation
    member_accuracies: dict[str, float]
    without: Evaluation | None
    tfidf: float | None
    seconds: float
    budget: str | float | None

    def table(self) -> Table:
        """The accuracies, for the terminal."""
        table = Table(
            "", "accuracy", "95 % interval", "macro F1", title=f"{self.test.texts:,} test texts", box=SIMPLE
        )

        def row(name: str, found: Evaluation) -> None:
            low, high = found.interval
            table.add_row(name, f"{found.accuracy:.3f}", f"{low:.3f} to {high:.3f}", f"{found.macro_f1:.3f}")

        row("committee", self.test)
        for name, accuracy in self.member_accuracies.items():
            table.add_row(f"  {name} alone", f"{accuracy:.3f}", "", "")
        if self.without:
            row("committee without pre-training", self.without)
        if self.tfidf is not None:
            table.add_row("TF-IDF + logistic regression", f"{self.tfidf:.3f}", "", "")
        return table


def write_fit_report(results: FitResults, path: Path) -> None:
    """Write the report as one HTML file."""
    fitted, found = results.fitted, results.test
    names = [_short(name) for name in results.label_names]
    order = np.argsort(-results.train_counts, kind="stable")[:MOST_LABELS]
    accuracies = {"committee": found.accuracy, **results.member_accuracies}
    if results.without:
        accuracies["without pre-training"] = results.without.accuracy
    losses = {
        f"member {number}": [record["loss"] for record in history.pretraining]
        for number, history in enumerate(fitted.histories, 1)
        if history.pretraining
    }
    curves = {
        f"member {number}": [record["validation_score"] for record in history.finetuning]
        for number, history in enumerate(fitted.histories, 1)
        if history.finetuning and "validation_score" in history.finetuning[0]
    }
    plots = {
        "labels": bar_plot(
            results.train_counts[order], [names[i] for i in order], "training texts", "labels"
        ),
        "accuracy": comparison_plot(accuracies, found.interval, results.tfidf),
        "calibration": calibration_plot(found.bins),
    }
    if losses:
        plots["pretraining"] = loss_plot(losses)
    if curves:
        plots["finetuning"] = history_plot(curves)
    if found.confusion is not None and len(names) <= MOST_LABELS:
        plots["confusion"] = confusion_plot(found.confusion, names, "label")
    write_page(
        path,
        "fit.html",
        results=results,
        found=found,
        fitted=fitted,
        headline=headline(results),
        findings=findings(results),
        plots=plots,
        accuracies=accuracies,
        lengths=np.percentile(results.lengths, (5, 50, 95)).astype(int).tolist(),
        shown_labels=len(order),
        mistakes=[_cut(mistake) for mistake in found.mistakes[:SHOWN_MISTAKES]],
    )


def headline(results: FitResults) -> str:
    """The main result in one line."""
    low, high = results.test.interval
    return (
        f"Accuracy {results.test.accuracy:.3f} ({low:.3f} to {high:.3f}) on {results.test.texts:,} test texts"
    )


def findings(results: FitResults) -> list[str]:
    """The comparisons, each a sentence that says so where the committee is behind."""
    found, latency = results.test, results.fitted.latency
    low, high = found.interval

    def against(rival: float, what: str) -> str:
        if low <= rival <= high:
            return f"{what} reaches {rival:.3f}, within the committee's interval: no clear difference."
        side = "above" if found.accuracy > rival else "below"
        return f"{what} reaches {rival:.3f}: the committee is {abs(found.accuracy - rival):.3f} {side} it."

    sentences = []
    if results.tfidf is not None:
        sentences.append(against(results.tfidf, "TF-IDF with logistic regression on the same texts"))
    if results.without:
        sentences.append(against(results.without.accuracy, "The same committee without pre-training"))
    if len(results.member_accuracies) > 1:
        alone = ", ".join(f"{accuracy:.3f} ({name})" for name, accuracy in results.member_accuracies.items())
        sentences.append(f"Its members alone reach {alone}.")
    sentences.append(
        f"A text takes {latency.p50:.2f} ms on one thread (median; {latency.p95:.2f} ms for 95 of 100)."
    )
    if found.low_coverage:
        sentences.append(
            f"{found.low_coverage:,} of {found.texts:,} test texts consist half or more of tokens that"
            " pre-training hardly saw; answers on such texts are guesses."
        )
    return sentences


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _cut(mistake: Any) -> Any:
    text = " ".join(mistake.text.split())
    return replace(mistake, text=text if len(text) <= 200 else text[:199] + "…")
