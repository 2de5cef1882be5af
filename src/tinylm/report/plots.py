"""Plots of the reports, as SVG inside the page: sharp at any size, their words can be searched."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cycler import cycler
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
    return svg_element(figure, "accuracy")


def _trials(axes: Axes, values: Sequence[float], row: float, style: Mapping[str, Any]) -> None:
    axes.plot(values, np.full(len(values), row), "o", alpha=0.6, markeredgewidth=0, **style)
    axes.plot(np.mean(values), row, "|", color=style["color"], markersize=13, markeredgewidth=2.5)


@rc_context(STYLE)
def loss_plot(losses: Mapping[str, Sequence[float]]) -> Markup:
    """Pre-training loss (nats per hidden token) by epoch, a line for each model's name."""
    return svg_element(_lines(losses, 3.5, "mean loss of the epoch", columns=1), "pretraining")


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
    return svg_element(figure, "finetuning")


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
    return svg_element(figure, "latency")


@rc_context(STYLE)
def confusion_plot(counts: np.ndarray, label_names: Sequence[str], truth: str = "topic") -> Markup:
    """Counts by true label (rows) and answer (columns), coloured by their share of the row.

    Args:
        counts: `int64 [labels, labels]`.
        label_names: of rows and columns.
        truth: what the rows are called.
    """
    figure = Figure(figsize=(1.2 * WIDTH, 1.15 * WIDTH))  # room for three digits in a cell
    axes = figure.subplots()
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)  # a label may have no test text
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.5 else BLACK
        axes.text(column, row, counts[row, column], color=color, fontsize=8, ha="center", va="center")
    places = range(len(label_names))
    axes.set_xticks(places, label_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, label_names)
    axes.grid(visible=False)
    axes.set_xlabel("answer")
    axes.set_ylabel(truth)
    return svg_element(figure, "confusion")


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
    return svg_element(figure, "labels")


@rc_context(STYLE)
def bar_plot(values: np.ndarray, names: Sequence[str], axis: str, name: str) -> Markup:
    """A bar for each of `values` (`[names]`), with its number; `axis` says of what."""
    figure, axes = _figure(0.7 + 0.25 * len(names))
    bars = axes.barh(range(len(names)), values, color=BLUE, height=0.65)
    axes.bar_label(bars, [f"{value:,}" for value in values], padding=3)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.15)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis)
    return svg_element(figure, name)


@rc_context(STYLE)
def comparison_plot(
    accuracies: Mapping[str, float], interval: tuple[float, float], tfidf: float | None
) -> Markup:
    """Test accuracy of each model as a dot; the first one's interval as a line; TF-IDF dashed."""
    figure, axes = _figure(1.0 + 0.35 * len(accuracies))
    colors = [GREEN, *(RED if name.startswith("without") else BLUE for name in list(accuracies)[1:])]
    axes.plot(interval, (0, 0), color=GREEN, marker="", linewidth=3, alpha=0.4, label="95 % interval")
    for row, (value, color) in enumerate(zip(accuracies.values(), colors, strict=True)):
        axes.plot(value, row, "o", color=color, markersize=8)
        axes.annotate(
            f"{value:.3f}", (value, row), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    if tfidf is not None:
        axes.axvline(tfidf, color=BLACK, linestyle="--", linewidth=1, label=f"TF-IDF {tfidf:.3f}")
    axes.set_yticks(range(len(accuracies)), list(accuracies))
    axes.set_ylim(len(accuracies) - 0.5, -0.7)
    axes.margins(x=0.15)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("test accuracy")
    _legend(figure, columns=2)
    return svg_element(figure, "accuracy")


@rc_context(STYLE)
def history_plot(curves: Mapping[str, Sequence[float]]) -> Markup:
    """Score on the validation texts by epoch, a line for each member."""
    return svg_element(_lines(curves, 3.0, "validation score", columns=3), "finetuning")


@rc_context(STYLE)
def calibration_plot(bins: Sequence[tuple[float, float, int]]) -> Markup:
    """Share of right answers by confidence; the area of a dot is the bin's number of answers.

    Args:
        bins: mean confidence, share of right answers, number of answers.
    """
    figure, axes = _figure(3.2)
    confidence, right, counts = np.array(bins, np.float64).T
    axes.plot((0, 1), (0, 1), color=BLACK, linestyle="--", linewidth=1, marker="", label="honest")
    axes.scatter(confidence, right, 10 + 300 * counts / counts.sum(), color=BLUE, alpha=0.8, label="answers")
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of right answers")
    _legend(figure, columns=2)
    return svg_element(figure, "calibration")


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots()


def _lines(curves: Mapping[str, Sequence[float]], height: float, label: str, columns: int) -> Figure:
    """A line over the epochs for each name, `columns` names beside each other in the legend."""
    figure, axes = _figure(height)
    for name, values in curves.items():
        axes.plot(range(1, len(values) + 1), values, label=name)
    _epochs(axes)
    axes.set_ylabel(label)
    _legend(figure, columns=columns)
    return figure


def _epochs(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")


def _legend(figure: Figure, columns: int) -> None:
    # Above the axes, where it covers no data.
    figure.legend(loc="outside upper left", ncols=columns)


def svg_element(figure: Figure, name: str) -> Markup:
    """The figure as an `<svg>` element for the body of a page.

    Args:
        name: put in front of its ids, which must be unique in the page.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    element = text[text.index("<svg") :]  # without the prologue of a file
    return Markup(re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", element))
