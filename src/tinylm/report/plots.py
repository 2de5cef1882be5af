"""Plots of the reports, all in one style.

In a page they are SVG: sharp at any size, and their words can be searched.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)

from tinylm.report.format import row_and_column_names
from tinylm.system.files import new_file

# Okabe and Ito's colours, which colour-blind people can tell apart.
BLACK, BLUE, GREEN, ORANGE, RED, PINK = "#333333", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
WITH: dict[str, Any] = {"color": BLUE, "label": "with pre-training"}
WITHOUT: dict[str, Any] = {"color": RED, "label": "without pre-training"}
NAME_WIDTH = 24  # characters of a label's name
WIDTH = 4.5  # inches; so narrow that letters remain readable when a phone shrinks the plot
TIMES = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 36_000: "10 h"}
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


def new_figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure of this size in inches, and its axes."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def add_legend(figure: Figure, columns: int = 2) -> Figure:
    """The figure with its legend above the axes, where it covers no data."""
    figure.legend(loc="outside upper left", ncols=columns)
    return figure


@rc_context(STYLE)
def svg_element(figure: Figure, name: str) -> Markup:
    """The figure as an `<svg>` element for the body of a page.

    Args:
        figure: drawn in the style.
        name: put in front of its ids, which must be unique in the page.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    element = text[text.index("<svg") :]  # without the prologue of a file
    return Markup(re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", element))


@rc_context(STYLE)  # letters stay text, and the same results give the same file
def write_svg(figure: Figure, path: Path) -> None:
    """Write the figure as an SVG file, all or nothing."""
    with new_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


# --- The demo ---


@rc_context(STYLE)
def accuracy_plot(
    accuracies: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    committee: Sequence[float],
    baselines: Mapping[str, float],
) -> Figure:
    """Accuracy of each model: a dot for each trial, a bar at their mean.

    Args:
        accuracies: by the model's name, of the trials with and of those without pre-training.
        committee: of its trials.
        baselines: by name, drawn as dashed lines.
    """
    names = [*accuracies, "committee"]
    figure, axes = new_figure(0.8 + 0.5 * len(names))
    for row, pair in enumerate(accuracies.values()):
        for values, style, shift in zip(pair, (WITH, WITHOUT), (-0.13, 0.13), strict=True):
            _trials(axes, values, row + shift, style if row == 0 else {"color": style["color"]})
    _trials(axes, committee, len(accuracies), {"color": GREEN, "label": "committee"})
    _vertical_lines(axes, baselines)
    # In two lines, as in "BERT-1, 2 heads," and "1 convolution 8 x 3x3": long names leave no room for dots.
    _rows(axes, [",\n".join(name.rsplit(", ", 1)) for name in names])
    axes.set_xlabel("test accuracy")
    return add_legend(figure)


def _trials(axes: Axes, values: Sequence[float], row: float, style: Mapping[str, Any]) -> None:
    axes.plot(values, np.full(len(values), row), "o", alpha=0.6, markeredgewidth=0, **style)
    axes.plot(np.mean(values), row, "|", color=style["color"], markersize=13, markeredgewidth=2.5)


@rc_context(STYLE)
def finetuning_plot(
    with_pretraining: Sequence[tuple[Sequence[float], int]], without: Sequence[tuple[Sequence[float], int]]
) -> Figure:
    """Validation accuracy by epoch of fine-tuning, a line for each trial; a dot marks the epoch kept.

    Args:
        with_pretraining: of each trial the accuracies and the epoch kept, from 1.
        without: the same.
    """
    figure, axes = new_figure(2.9)
    for trials, style in ((with_pretraining, WITH), (without, WITHOUT)):
        for number, (values, kept) in enumerate(trials):
            label = style["label"] if number == 0 else None
            axes.plot(
                range(1, len(values) + 1), values, color=style["color"], marker="", alpha=0.6, label=label
            )
            axes.plot(kept, values[kept - 1], "o", color=style["color"], markersize=7)
    _epochs(axes)
    axes.set_ylabel("validation accuracy")
    return add_legend(figure)


@rc_context(STYLE)
def latency_plot(models: Mapping[str, tuple[float, Sequence[float]]]) -> Figure:
    """Accuracy against latency, with the standard deviation of the accuracy.

    Args:
        models: by name, the latency in milliseconds and the accuracy of each trial.
    """
    figure, axes = new_figure(2.9)
    for name, (latency, values) in models.items():
        deviation = np.std(values, ddof=1) if len(values) > 1 else 0
        axes.errorbar(latency, np.mean(values), deviation, capsize=3, markersize=8, label=name)
    axes.set_xlim(left=0)
    axes.set_xlabel("latency, ms per text (median)")
    axes.set_ylabel("test accuracy")
    return add_legend(figure)


# --- Any classifier ---


@rc_context(STYLE)
def confusion_plot(counts: np.ndarray, label_names: Sequence[str], truth: str = "label") -> Figure:
    """Counts by true label (rows) and predicted label (columns), coloured by their share of the row.

    Args:
        counts: `int64 [labels, labels]`.
        label_names: of rows and columns; long ones are cut, or numbered where they would look the same.
        truth: what the rows are called.
    """
    # Room for three digits in a cell.
    figure, axes = new_figure(1.15 * WIDTH, 1.2 * WIDTH)
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)  # a label may have no test text
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.5 else BLACK
        axes.text(column, row, counts[row, column], color=color, fontsize=8, ha="center", va="center")
    ticks = range(len(label_names))
    rows, columns = row_and_column_names(label_names, NAME_WIDTH, NAME_WIDTH)
    if rows == columns:
        axes.set_xticks(ticks, columns, rotation=45, ha="right", rotation_mode="anchor")
    else:  # numbers
        axes.set_xticks(ticks, columns)
    axes.set_yticks(ticks, rows)
    axes.grid(visible=False)
    axes.set_xlabel("prediction")
    axes.set_ylabel(truth)
    return figure


@rc_context(STYLE)
def label_plot(
    accuracies: np.ndarray,
    label_names: Sequence[str],
    lines: Mapping[str, float] | None = None,
    size: float = 9,
) -> Figure:
    """Accuracy of each label, best first, with their mean as a dashed line (Fig. 1 of the paper).

    Args:
        accuracies: `[labels]`.
        label_names: in the same order.
        lines: other values by name, dotted.
        size: of the names, in points.
    """
    figure, axes = new_figure(0.9 + 0.028 * size * len(label_names))
    order = np.argsort(-accuracies, kind="stable")
    axes.barh(range(len(order)), accuracies[order], color=GREEN, height=0.65)
    _vertical_lines(axes, {"mean": float(np.mean(accuracies))})
    _vertical_lines(axes, lines or {}, linestyle=":")
    _rows(axes, [label_names[label] for label in order], size)
    axes.set_xlim(0, 1)
    axes.set_xlabel("test accuracy")
    return add_legend(figure)


@rc_context(STYLE)
def bar_plot(values: np.ndarray, names: Sequence[str], axis: str) -> Figure:
    """A bar for each of `values` (`[names]`), with its number; `axis` says of what."""
    figure, axes = new_figure(0.7 + 0.25 * len(names))
    bars = axes.barh(range(len(names)), values, color=BLUE, height=0.65)
    axes.bar_label(bars, [f"{value:,}" for value in values], padding=3)
    _rows(axes, names)
    axes.margins(x=0.15)
    axes.set_xlabel(axis)
    return figure


# --- A fit ---


@rc_context(STYLE)
def comparison_plot(
    accuracies: Mapping[str, float], interval: tuple[float, float], baselines: Mapping[str, float]
) -> Figure:
    """Test accuracy of each model as a dot; the first one's interval as a line; baselines dashed."""
    figure, axes = new_figure(1.0 + 0.35 * len(accuracies))
    colors = [GREEN, *(RED if name.startswith("without") else BLUE for name in list(accuracies)[1:])]
    axes.plot(interval, (0, 0), color=GREEN, marker="", linewidth=3, alpha=0.4, label="95 % interval")
    for row, (value, color) in enumerate(zip(accuracies.values(), colors, strict=True)):
        axes.plot(value, row, "o", color=color, markersize=8)
        axes.annotate(
            f"{value:.3f}", (value, row), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    _vertical_lines(axes, baselines)
    _rows(axes, list(accuracies))
    axes.set_ylim(len(accuracies) - 0.5, -0.7)  # room for the first number
    axes.margins(x=0.15)
    axes.set_xlabel("test accuracy")
    return add_legend(figure)


@rc_context(STYLE)
def epochs_plot(curves: Mapping[str, Sequence[float]], label: str, columns: int = 1) -> Figure:
    """A line over the epochs for each name; `label` says of what, `columns` are those of the legend."""
    figure, axes = new_figure(3.2)
    for name, values in curves.items():
        axes.plot(range(1, len(values) + 1), values, label=name)
    _epochs(axes)
    axes.set_ylabel(label)
    return add_legend(figure, columns)


@rc_context(STYLE)
def calibration_plot(bins: Sequence[tuple[float, float, int]]) -> Figure:
    """Share of right predictions by confidence; the area of a dot is the bin's number of predictions.

    Args:
        bins: mean confidence, share of right predictions, number of predictions.
    """
    figure, axes = new_figure(3.2)
    confidence, right, counts = np.array(bins, np.float64).T
    axes.plot((0, 1), (0, 1), color=BLACK, linestyle="--", linewidth=1, marker="", label="perfect")
    sizes = 10 + 300 * counts / counts.sum()
    axes.scatter(confidence, right, sizes, color=BLUE, alpha=0.8, label="predictions")
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of right predictions")
    return add_legend(figure)


# --- The laboratory ---


@rc_context(STYLE)
def seconds_plot(
    panels: Mapping[str, Sequence[tuple[float, float, float]]], linear: Mapping[str, float]
) -> Figure:
    """Accuracy against seconds of training, a panel for each task.

    Args:
        panels: of each variant its seconds, the accuracy of the encoder, and that with the linear model.
        linear: accuracy of the strong linear model, dashed.
    """
    figure = Figure(figsize=(WIDTH, 0.7 + 1.5 * len(panels)))
    for axes, (task, points) in zip(
        figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels.items(), strict=True
    ):
        seconds, alone, together = np.array(points).T
        first = axes is figure.axes[0]
        axes.plot(seconds, alone, "o", color=BLUE, label="encoder" if first else None)
        axes.plot(seconds, together, "D", color=GREEN, label="encoder and linear model" if first else None)
        axes.axhline(
            linear[task], color=BLACK, linestyle="--", linewidth=1.2, label="linear model" if first else None
        )
        axes.set_xscale("log")
        axes.set_ylabel(task)
    every = [seconds for points in panels.values() for seconds, _, _ in points]
    axes.set_xlim(min(every) / 1.5, max(every) * 1.5)  # wide enough to hold a tick
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 10k: the style writes no powers
    axes.xaxis.set_minor_formatter(NullFormatter())
    figure.axes[-1].set_xlabel("seconds of training on one core")
    return add_legend(figure)


@dataclass(frozen=True)
class Point:
    """Seconds of a training, the accuracy that it reached, and how far others of its kind deviate."""

    seconds: float
    accuracy: float
    deviation: float


@rc_context(STYLE)
def fits_plot(panels: Mapping[str, Mapping[str, Sequence[Point]]], rivals: Collection[str]) -> Figure:
    """Accuracy against seconds of whole trainings, a panel for each task.

    Args:
        panels: by the task's name and by that of what was trained, in the same order for all.
        rivals: names of what no longer time makes better: a dashed line leads on from their point.
    """
    figure = Figure(figsize=(WIDTH, 0.8 + 1.6 * len(panels)))
    styles = [{"color": c, "marker": m} for c, m in zip((BLUE, RED, BLACK, PINK), "osD^", strict=True)]
    named: set[str] = set()
    for axes, (task, series) in zip(
        figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels.items(), strict=True
    ):
        for (name, found), style in zip(series.items(), styles, strict=False):
            if found:
                seconds, accuracies = ([getattr(p, part) for p in found] for part in ("seconds", "accuracy"))
                bars = [point.deviation for point in found]
                label = None if name in named else name
                axes.errorbar(seconds, accuracies, bars, linewidth=1.2, capsize=3, label=label, **style)
                named.add(name)
            for point in found if name in rivals else ():
                line = {"color": style["color"], "linestyle": "--", "linewidth": 0.9}
                axes.hlines(point.accuracy, point.seconds, max(TIMES), **line)
        axes.set_xscale("log")
        axes.set_ylabel(task)
    every = [point.seconds for series in panels.values() for found in series.values() for point in found]
    axes.set_xlim(min(every) / 1.5, max(every) * 1.5)
    axes.xaxis.set_major_locator(FixedLocator(list(TIMES)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: TIMES.get(seconds, "")))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("time of training")
    return add_legend(figure)


def _vertical_lines(axes: Axes, values: Mapping[str, float], linestyle: str = "--") -> None:
    for (name, value), color in zip(values.items(), (BLACK, PINK), strict=False):
        axes.axvline(value, color=color, linestyle=linestyle, linewidth=1.2, label=f"{name} {value:.3f}")


def _rows(axes: Axes, names: Sequence[str], size: float = 9) -> None:
    """A row for each name, the first on top."""
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _epochs(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
