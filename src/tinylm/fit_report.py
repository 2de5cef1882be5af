"""What `tinylm fit` does around `TinyTextClassifier`, and the page that shows it.

Everything that was learnt, chosen or calibrated saw training and validation texts alone;
the test texts are asked once, at the end.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from tinylm import sharing
from tinylm.baselines import tfidf_pipeline
from tinylm.classifier import Classifier
from tinylm.committee import Committee
from tinylm.errors import UserError
from tinylm.estimator import TinyTextClassifier
from tinylm.evaluation import Evaluation, evaluate
from tinylm.fitting import Fitted, split_rows
from tinylm.folders import write_record
from tinylm.model.linear import LinearClassifier
from tinylm.plots import bar_plot, calibration_plot, comparison_plot, confusion_plot, history_plot, loss_plot
from tinylm.report import write_page
from tinylm.text.labelled import Labelled, targets_of
from tinylm.train.budget import seconds_of

MOST_LABELS = 25  # that a plot shows; the rest is summed up
SHOWN_MISTAKES = 12
# Of the budget, for reading, TF-IDF, test and report.
REPORT_SHARE = 0.06


@dataclass(frozen=True)
class FitResults:
    """Everything that the report of a fit shows.

    Attributes:
        name: of the folder.
        sources: the table and, where given, that of the test rows.
        label_names: in the order of the field.
        train_counts, test_counts: rows of each label.
        lengths: words of each training text.
        remarks: sentences on the data.
        shared: distinct texts that are both in train and test.
        fitted: the training.
        test: the committee on the test texts.
        member_accuracies: of each member alone, by its name.
        without: the committee without pre-training on the test texts, where it was asked for.
        tfidf: accuracy of TF-IDF with logistic regression; None where it cannot be had.
        seconds: of everything.
        budget: as it was given.
    """

    name: str
    sources: tuple[str, str | None]
    label_names: list[str]
    train_counts: np.ndarray
    test_counts: np.ndarray
    lengths: np.ndarray
    remarks: list[str]
    shared: int
    fitted: Fitted
    test: Evaluation
    member_accuracies: dict[str, float]
    without: Evaluation | None
    tfidf: float | None
    seconds: float
    budget: str

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


def fit_and_report(
    classifier: TinyTextClassifier,
    labelled: Labelled,
    tested: Labelled | None,
    test_share: float,
    folder: Path,
    *,
    name: str,
    sources: tuple[str, str | None],
    compare: bool,
    settings: dict[str, Any],
) -> FitResults:
    """Fit, test, and write the model, its card and `report.html` into an existing, empty folder.

    Args:
        classifier: not fitted; its budget is for all of this.
        labelled: the training texts.
        tested: the test texts; None splits `test_share` of the training texts off, label by label.
        test_share: see `tested`.
        folder: where to.
        name: what card and report call it.
        sources: where the texts come from, for messages.
        compare: also train without pre-training.
        settings: for the record.
    """
    begin = time.time()
    train, test = (labelled, tested) if tested else _split_off(labelled, test_share, classifier.random_state)
    if not test.texts:
        raise UserError(f"{sources[0]} has too few rows to split test rows off; give a file with --test.")
    if classifier.budget is not None:
        classifier.set_params(budget=(1 - REPORT_SHARE) * seconds_of(classifier.budget))
    budget = str(settings.get("budget", classifier.budget))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # they are among the remarks
        (classifier.fit_compared if compare else classifier.fit)(train.texts, train.labels)
    fitted, committee = classifier.fitted_, classifier.committee_
    targets = targets_of(train, committee.label_names, sources[0])
    test_targets = targets_of(test, committee.label_names, sources[1] or sources[0])
    found = evaluate(committee, test.texts, test_targets)
    unusable = Counter(train.unusable) + Counter(tested.unusable if tested else {})
    shared = len(set(train.texts) & set(test.texts))
    results = FitResults(
        name=name,
        sources=sources,
        label_names=committee.label_names,
        train_counts=_counts(targets, len(committee.label_names)),
        test_counts=_counts(test_targets, len(committee.label_names)),
        lengths=np.array([len(text.split()) for text in train.texts]),
        remarks=[
            *(f"{count:,} rows left out: {reason}." for reason, count in unusable.items()),
            *classifier.remarks_,
            *([f"{shared:,} distinct texts are in both train and test, which flatters."] if shared else []),
        ],
        shared=shared,
        fitted=fitted,
        test=found,
        member_accuracies={
            _member_name(number, member): _alone(committee, member, test.texts, test_targets)
            for number, member in enumerate(committee.members, 1)
        },
        without=evaluate(fitted.without, test.texts, test_targets) if fitted.without else None,
        tfidf=_tfidf(train.texts, targets, test.texts, test_targets),
        seconds=time.time() - begin,
        budget=budget,
    )
    facts = classifier.facts_ | {"test": found.summary(), "tfidf": results.tfidf}
    facts["source"], facts["seconds"] = sources[0], results.seconds
    sharing.write(committee, facts, folder, name)
    write_fit_report(results, folder / "report.html")
    write_record(folder, "committee", settings=settings, facts=facts, test=found.summary())
    return results


def write_fit_report(results: FitResults, path: Path) -> None:
    """Write the report as one HTML file."""
    fitted, found = results.fitted, results.test
    names = [_short(name) for name in results.label_names]
    order = np.argsort(-results.train_counts, kind="stable")[:MOST_LABELS]
    accuracies = {"committee": found.accuracy, **results.member_accuracies}
    if results.without:
        accuracies["without pre-training"] = results.without.accuracy
    losses = {
        f"member {number}": [record["loss"] for record in member.pretraining]
        for number, member in enumerate(fitted.members, 1)
        if member.pretraining
    }
    curves = {
        f"member {number}": [record["validation_score"] for record in member.finetuning]
        for number, member in enumerate(fitted.members, 1)
        if member.finetuning and "validation_score" in member.finetuning[0]
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
    if found.unfamiliar:
        sentences.append(
            f"{found.unfamiliar:,} of {found.texts:,} test texts consist half or more of tokens that"
            " pre-training hardly saw; answers on such texts are guesses."
        )
    return sentences


def _split_off(labelled: Labelled, share: float, seed: Any) -> tuple[Labelled, Labelled]:
    names = sorted({name for label in labelled.labels for name in _listed(label)})
    split = split_rows(labelled.texts, targets_of(labelled, names, "the table"), share, int(seed or 0))

    def part(rows: np.ndarray) -> Labelled:
        return replace(
            labelled, texts=[labelled.texts[i] for i in rows], labels=[labelled.labels[i] for i in rows]
        )

    return part(split.train), part(split.validation)


def _listed(label: Any) -> list[Any]:
    return label if isinstance(label, list) else [label]


def _counts(targets: np.ndarray, n_labels: int) -> np.ndarray:
    if targets.ndim == 2:
        return np.asarray(targets.sum(0), np.int64)
    return np.bincount(targets, minlength=n_labels)


def _member_name(number: int, member: Classifier) -> str:
    return "linear member" if isinstance(member.model, LinearClassifier) else f"member {number}"


def _alone(committee: Committee, member: Classifier, texts: Sequence[str], targets: np.ndarray) -> float:
    """Accuracy of one member; of several labels per text at thresholds of one half."""
    field = member.logits(texts)
    if committee.thresholds is not None:
        return float(((field > 0) == (targets > 0)).all(1).mean())
    return float(np.mean(field.argmax(1) == targets))


def _tfidf(
    texts: Sequence[str], targets: np.ndarray, test_texts: Sequence[str], test_targets: np.ndarray
) -> float | None:
    if targets.ndim == 2:
        return None
    try:
        return float(tfidf_pipeline().fit(texts, targets).score(test_texts, test_targets))
    except ValueError:  # scikit-learn finds no word in texts of emoji or single letters
        return None


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _cut(mistake: Any) -> Any:
    text = " ".join(mistake.text.split())
    return replace(mistake, text=text if len(text) <= 200 else text[:199] + "…")
