"""The page of a fit: what was trained, on what, and how good it is beside its rivals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from tinylm.fit.pipeline import Fitted
from tinylm.infer.baselines import LINEAR_SVM, Score
from tinylm.infer.evaluation import Evaluation
from tinylm.report.format import count, cut, cut_name, number, range_words, signed, two_digits
from tinylm.report.page import write_page
from tinylm.report.plots import (
    NAME_WIDTH,
    bar_plot,
    calibration_plot,
    comparison_plot,
    confusion_plot,
    epochs_plot,
)
from tinylm.report.tables import figures_table

MOST_LABELS = 25  # that a plot shows; the rest is summed up
SHOWN_MISTAKES = 12
MISTAKE_LENGTH = 200  # characters


@dataclass(frozen=True)
class FitResults:
    """Everything that the report of a fit shows.

    Attributes:
        name: of the folder.
        sources: the table and, where given, that of the test rows.
        label_names: in the order of the logits.
        train_counts, test_counts: rows of each label.
        lengths: words of each training text.
        data_warnings: sentences on the data.
        fitted: the training.
        test: the committee on the test texts.
        member_accuracies: of each member alone, by its name.
        teacher: the committee that taught, where `test` is of its student.
        without: the committee without pre-training on the test texts, if it was trained.
        linear_svm: the strong linear model on the same texts; None where they hold no word or
            it would take too long.
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
    teacher: Evaluation | None
    without: Evaluation | None
    linear_svm: Score | None
    seconds: float
    budget: str | float | None

    @property
    def gap(self) -> float | None:
        """Accuracy with minus accuracy without pre-training; None where only one was trained."""
        return None if self.without is None else (self.teacher or self.test).accuracy - self.without.accuracy

    def table(self) -> Table:
        """The accuracies, for the terminal."""
        title = f"{count(self.test.texts)} test texts"
        table = figures_table(title, "", ("accuracy", "95 % interval", "macro F1"))

        def row(name: str, found: Evaluation) -> None:
            table.add_row(name, number(found.accuracy), range_words(found.interval), number(found.macro_f1))

        if self.teacher:
            row("student", self.test)
            row("committee that taught it", self.teacher)
        else:
            row("committee", self.test)
        for name, accuracy in self.member_accuracies.items():
            table.add_row(f"  {name} alone", number(accuracy))
        if self.without:
            row("committee without pre-training", self.without)
            table.add_row("  gap", signed(self.gap))
        if self.linear_svm:
            table.add_row(LINEAR_SVM, number(self.linear_svm.accuracy), "", number(self.linear_svm.macro_f1))
        return table


def write_fit_report(results: FitResults, path: Path) -> None:
    """Write the report as one HTML file."""
    found = results.test
    order = np.argsort(-results.train_counts, kind="stable")[:MOST_LABELS]
    accuracies = {"student" if results.teacher else "committee": found.accuracy}
    if results.teacher:
        accuracies["committee"] = results.teacher.accuracy
    accuracies |= results.member_accuracies
    if results.without:
        accuracies["without pre-training"] = results.without.accuracy
    baselines = {"linear SVM": results.linear_svm.accuracy} if results.linear_svm else {}
    write_page(
        path,
        "fit.html",
        _plots(results, order, accuracies, baselines),
        results=results,
        found=found,
        fitted=results.fitted,
        headline=headline(results),
        findings=findings(results),
        accuracies=accuracies,
        baselines=baselines,
        lengths=np.percentile(results.lengths, (5, 50, 95)).astype(int).tolist(),
        shown_labels=len(order),
        mistakes=[
            replace(mistake, text=cut(mistake.text, MISTAKE_LENGTH))
            for mistake in found.mistakes[:SHOWN_MISTAKES]
        ],
        rival_training=_rival_training(results.fitted),
        last_training=_last_training(results.fitted),
    )


def _plots(
    results: FitResults,
    order: np.ndarray,
    accuracies: Mapping[str, float],
    baselines: Mapping[str, float],
) -> dict[str, Figure]:
    histories, found = results.fitted.histories, results.test
    members = [f"member {number}" for number in range(1, len(histories) + 1)]
    losses = {
        name: [epoch["loss"] for epoch in history.pretraining]
        for name, history in zip(members, histories, strict=True)
        if history.pretraining
    }
    scores = {
        name: history.finetuning.scores
        for name, history in zip(members, histories, strict=True)
        if history.finetuning.scores
    }
    names = [cut_name(results.label_names[i], NAME_WIDTH) for i in order]
    plots = {
        "labels": bar_plot(results.train_counts[order], names, "training texts"),
        "accuracy": comparison_plot(accuracies, found.interval, baselines),
        "calibration": calibration_plot(found.bins),
    }
    if losses:
        plots["pretraining"] = epochs_plot(losses, "mean loss of the epoch")
    if scores:
        plots["finetuning"] = epochs_plot(scores, "validation score", columns=3)
    if found.confusion is not None and len(results.label_names) <= MOST_LABELS:
        plots["confusion"] = confusion_plot(found.confusion, results.label_names)
    return plots


def headline(results: FitResults) -> str:
    """The main result in one line."""
    found = results.test
    accuracy = f"Accuracy {number(found.accuracy)} ({range_words(found.interval)})"
    return f"{accuracy} on {count(found.texts)} test texts"


def findings(results: FitResults) -> list[str]:
    """The comparisons, each a sentence that says so where the committee is behind."""
    found, latency = results.test, results.fitted.latency
    low, high = found.interval

    def against(rival: float, what: str) -> str:
        if low <= rival <= high:
            return f"{what} reaches {number(rival)}, within the {who}'s interval: no clear difference."
        side, difference = "above" if found.accuracy > rival else "below", abs(found.accuracy - rival)
        return f"{what} reaches {number(rival)}: the {who} is {number(difference)} {side} it."

    who, sentences = "committee", []
    if results.teacher:
        who, time = "student", two_digits(results.fitted.all_members_latency.p50)
        taught = against(results.teacher.accuracy, "The committee that taught the student")
        sentences.append(f"{taught} The committee takes {time} ms a text.")
    if results.linear_svm:
        sentences.append(
            against(results.linear_svm.accuracy, "A linear SVM on words and characters of the labelled texts")
        )
    if results.without:
        sentences.append(
            against(results.without.accuracy, "The committee without pre-training")
            + f" The gap of pre-training is {signed(results.gap)}."
        )
    if len(results.member_accuracies) > 1:
        alone = ", ".join(
            f"{number(accuracy)} ({name})" for name, accuracy in results.member_accuracies.items()
        )
        sentences.append(f"The committee's members alone reach {alone}.")
    sentences.append(
        f"A text takes {two_digits(latency.p50)} ms on one thread (median; {two_digits(latency.p95)} ms for"
        " 95 of 100)."
    )
    if found.low_coverage:
        sentences.append(
            f"{count(found.low_coverage)} of {count(found.texts)} test texts consist of words that"
            " pre-training hardly met; predictions for such texts are guesses."
        )
    return sentences


def _rival_training(fitted: Fitted) -> str | None:
    """How the committee without pre-training was trained; None where there is none."""
    logs = [history.without for history in fitted.histories if history.without]
    if not logs:
        return None
    if logs[0].patience is None:
        epochs = ", ".join(str(log.kept) for log in logs)
        return (
            f"Without pre-training, the encoders were trained for {epochs} epochs, a number set beforehand:"
            " so few validation texts cannot choose it."
        )
    kept = ", ".join(f"{log.kept} of {len(log.epochs)}" for log in logs)
    words = (
        "Without pre-training, each encoder was trained until its validation score had not risen for"
        f" {logs[0].patience} epochs, within at most {max(log.planned for log in logs)} epochs; the epochs"
        f" kept are {kept}."
    )
    if short := sum(log.cut_short for log in logs):
        who = "each" if short == len(logs) else f"{short} of {len(logs)}"
        words += f" For {who} the epochs were over before that, so a longer training might make it better."
    return words


def _last_training(fitted: Fitted) -> str | None:
    """Which encoders learned the validation texts, too, in the end; None if none did."""
    parts = fitted.split
    everything = len(parts.train) + len(parts.validation)
    learned = sum(history.labelled_used == everything for history in fitted.histories)
    if not learned or not len(parts.validation):
        return None
    members = len(fitted.histories)
    who = "each member" if learned == members else f"{learned} of {members} members"
    return f"Then {who} began again from the pre-trained weights and learned these texts, too."
