"""The demo's report: one HTML file that needs nothing outside itself.

Plots are SVG inside the page, so they stay sharp at any size and their words can be
searched. What the figures say is put in words first, and the words follow the figures
wherever they fall: no sentence here supposes that pre-training or the committee won.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cycler import cycler
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tinylm.latency import Latency
from tinylm.model.config import ModelConfig
from tinylm.text.coverage import Coverage
from tinylm.train.finetune import Finetuned

# Okabe and Ito's colours, which colour-blind people can tell apart.
BLACK, BLUE, GREEN, ORANGE, RED, PINK = "#333333", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
WITH: dict[str, Any] = {"color": BLUE, "label": "with pre-training"}
WITHOUT: dict[str, Any] = {"color": RED, "label": "without pre-training"}
WIDTH = 4.5  # inches; so narrow that letters remain readable when a phone shrinks the plot
STYLE: Any = {
    "axes.prop_cycle": cycler(color=[BLACK, PINK, GREEN, ORANGE, BLUE, RED], marker=list("osD^vP")),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "legend.frameon": False,
    "lines.markersize": 5,
    "svg.fonttype": "none",  # letters stay text
    "svg.hashsalt": "tinylm",  # the same results give the same file
    "text.parse_math": False,  # a label may hold dollar signs
}


@dataclass(frozen=True)
class Trained:
    """One architecture, pre-trained once and fine-tuned in several trials with and without it.

    Attributes:
        name: for tables, such as "BERT-1, 2 heads".
        config: the architecture.
        pretraining: for each epoch its mean loss.
        with_pretraining: one fine-tuning per trial from the pre-trained weights.
        without: one per trial from random weights, otherwise the same.
    """

    name: str
    config: ModelConfig
    pretraining: list[dict[str, float]]
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
    environment = Environment(
        loader=PackageLoader("tinylm"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"mean_deviation": _mean_deviation, "signed": _signed_mean_deviation}
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
    html = environment.get_template("demo.html").render(
        results=results,
        headline=headline(results),
        findings=findings(results),
        rows=_rows(results),
        accuracies=accuracies,
        timed=timed,
        recall=dict(zip(results.label_names, recall.tolist(), strict=True)),
        plots={
            "accuracy": accuracy_plot(accuracies, results.committee, results.tfidf),
            "pretraining": loss_plot(
                {model.name: [epoch["loss"] for epoch in model.pretraining] for model in trained}
            ),
            "finetuning": finetuning_plot(
                _test_accuracies(member.with_pretraining), _test_accuracies(member.without)
            ),
            "latency": latency_plot({name: (speed.p50, runs) for name, (speed, runs) in timed.items()}),
            "confusion": confusion_plot(confusion, results.label_names),
            "labels": label_plot(recall, results.label_names),
        },
    )
    partial = path.with_name(path.name + ".partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)


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
        f" gap {_signed_mean_deviation(deep.gaps)} over {len(deep.gaps)} trials{_caution(deep.gaps)}.",
        "The shallow members: "
        + "; ".join(
            f"{member.name}, gap {_signed_mean_deviation(member.gaps)}{_caution(member.gaps)}"
            for member in results.members
        )
        + ".",
        f"The soft committee of {len(results.members)} shallow members reaches"
        f" {_mean_deviation(results.committee)},"
        f" {_compared(np.subtract(results.committee, deep_accuracies), 'the deep model')}."
        f" It takes {latency['committee'].p50:.2f} ms per text, the deep model {latency['deep'].p50:.2f} ms.",
        f"TF-IDF with logistic regression, trained on the same {results.train_texts:,} texts, reaches"
        f" {tfidf:.3f}. The committee is {_compared(np.subtract(results.committee, tfidf), 'TF-IDF')},"
        f" the deep model {_compared(np.subtract(deep_accuracies, tfidf), 'TF-IDF')}.",
    ]


@rc_context(STYLE)
def accuracy_plot(
    accuracies: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    committee: Sequence[float],
    tfidf: float,
) -> Markup:
    """Accuracy of each model: a dot for each trial, a bar at their mean.

    Args:
        accuracies: by the model's name, of the trials with and of those without pre-training.
        committee: of its trials.
        tfidf: drawn as a dashed line.
    """
    names = [*accuracies, "committee"]
    figure, axes = _figure(0.8 + 0.5 * len(names))
    for row, pair in enumerate(accuracies.values()):
        for values, style, shift in zip(pair, (WITH, WITHOUT), (-0.13, 0.13), strict=True):
            _trials(axes, values, row + shift, style if row == 0 else {"color": style["color"]})
    _trials(axes, committee, len(accuracies), {"color": GREEN, "label": "committee"})
    axes.axvline(tfidf, color=BLACK, linestyle="--", linewidth=1, label="TF-IDF")
    # In two lines, as in "BERT-1, 2 heads," and "1 convolution 8 x 3x3": long names leave no room for dots.
    axes.set_yticks(range(len(names)), [",\n".join(name.rsplit(", ", 1)) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("test accuracy")
    _legend(figure, columns=2)
    return _svg(figure, "accuracy")


def _trials(axes: Axes, values: Sequence[float], row: float, style: Mapping[str, Any]) -> None:
    axes.plot(values, np.full(len(values), row), "o", alpha=0.6, markeredgewidth=0, **style)
    axes.plot(np.mean(values), row, "|", color=style["color"], markersize=13, markeredgewidth=2.5)


@rc_context(STYLE)
def loss_plot(losses: Mapping[str, Sequence[float]]) -> Markup:
    """Pre-training loss (nats per hidden token) by epoch, a line for each model's name."""
    figure, axes = _figure(3.5)
    for name, values in losses.items():
        axes.plot(range(1, len(values) + 1), values, label=name)
    _epochs(axes)
    axes.set_ylabel("mean loss of the epoch")
    _legend(figure, columns=1)
    return _svg(figure, "pretraining")


@rc_context(STYLE)
def finetuning_plot(with_pretraining: np.ndarray, without: np.ndarray) -> Markup:
    """Test accuracy by epoch of fine-tuning: the mean over trials, each trial faint.

    Args:
        with_pretraining: `[trials, epochs]`.
        without: the same.
    """
    figure, axes = _figure(2.9)
    for trials, style in ((with_pretraining, WITH), (without, WITHOUT)):
        epochs = range(1, trials.shape[1] + 1)
        axes.plot(epochs, trials.T, color=style["color"], alpha=0.3, linewidth=1, marker="")
        axes.plot(epochs, trials.mean(0), linewidth=2, marker="o", **style)
    _epochs(axes)
    axes.set_ylabel("test accuracy")
    _legend(figure, columns=2)
    return _svg(figure, "finetuning")


@rc_context(STYLE)
def latency_plot(models: Mapping[str, tuple[float, Sequence[float]]]) -> Markup:
    """Accuracy against latency, with the standard deviation of the accuracy.

    Args:
        models: by name, the latency in milliseconds and the accuracy of each trial.
    """
    figure, axes = _figure(2.9)
    for name, (latency, values) in models.items():
        axes.errorbar(latency, np.mean(values), np.std(values, ddof=1), capsize=3, markersize=8, label=name)
    axes.set_xlim(left=0)
    axes.set_xlabel("latency, ms per text (median)")
    axes.set_ylabel("test accuracy")
    _legend(figure, columns=2)
    return _svg(figure, "latency")


@rc_context(STYLE)
def confusion_plot(counts: np.ndarray, label_names: Sequence[str]) -> Markup:
    """Counts by true label (rows) and answer (columns), coloured by their share of the row.

    Args:
        counts: `int64 [labels, labels]`.
        label_names: of rows and columns.
    """
    figure = Figure(figsize=(1.2 * WIDTH, 1.15 * WIDTH))  # room for three digits in a cell
    axes = figure.subplots()
    shares = counts / counts.sum(1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.5 else BLACK
        axes.text(column, row, counts[row, column], color=color, fontsize=8, ha="center", va="center")
    places = range(len(label_names))
    axes.set_xticks(places, label_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, label_names)
    axes.grid(visible=False)
    axes.set_xlabel("answer")
    axes.set_ylabel("topic")
    return _svg(figure, "confusion")


@rc_context(STYLE)
def label_plot(accuracies: np.ndarray, label_names: Sequence[str]) -> Markup:
    """Accuracy of each label, best first, and their mean as a dashed line (Fig. 1 of the paper).

    Args:
        accuracies: `[labels]`.
        label_names: in the same order.
    """
    figure, axes = _figure(0.9 + 0.25 * len(label_names))
    order = np.argsort(-accuracies, kind="stable")
    axes.barh(range(len(order)), accuracies[order], color=GREEN, height=0.65)
    mean = float(np.mean(accuracies))
    axes.axvline(mean, color=BLACK, linestyle="--", linewidth=1.2, label=f"mean {mean:.3f}")
    axes.set_yticks(range(len(order)), [label_names[label] for label in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1)
    axes.set_xlabel("test accuracy")
    _legend(figure, columns=1)
    return _svg(figure, "labels")


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots()


def _epochs(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")


def _legend(figure: Figure, columns: int) -> None:
    # Above the axes, where it covers no data.
    figure.legend(loc="outside upper left", ncols=columns)


def _svg(figure: Figure, name: str) -> Markup:
    """The figure as an `<svg>` element for the body of a page.

    Args:
        name: put in front of its ids, which must be unique in the page.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    element = text[text.index("<svg") :]  # without the prologue of a file
    return Markup(re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", element))


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


def _mean_deviation(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _signed_mean_deviation(values: np.ndarray) -> str:
    return f"{np.mean(values):+.3f} ± {np.std(values, ddof=1):.3f}".replace("-", "\N{MINUS SIGN}")


def _within_deviation(differences: np.ndarray) -> bool:
    return bool(abs(np.mean(differences)) <= np.std(differences, ddof=1))


def _caution(gaps: np.ndarray) -> str:
    return " (within one standard deviation, so no clear effect)" if _within_deviation(gaps) else ""


def _compared(differences: np.ndarray, rival: str) -> str:
    """Such as "0.012 below TF-IDF", for the mean of the trials' differences."""
    mean = np.mean(differences)
    words = f"{abs(mean):.3f} {'above' if mean > 0 else 'below'} {rival}"
    return words + (" (within one standard deviation)" if _within_deviation(differences) else "")
