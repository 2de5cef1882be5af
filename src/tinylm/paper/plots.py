"""The plots of the paper's report, in the demo's style, as figures for SVG and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, StrMethodFormatter

from tinylm.paper.claims import random_rows_of
from tinylm.paper.statistics import Curve
from tinylm.paper.view import PanelResult, RowResult
from tinylm.report.format import Interval
from tinylm.report.plots import BLACK, BLUE, GREEN, ORANGE, RED, STYLE, WIDTH, add_legend, new_figure
from tinylm.report.plots import label_plot as bars_of_labels

DEEP_STYLES: list[dict[str, Any]] = [
    {"color": BLACK, "marker": "s"},
    {"color": ORANGE, "marker": "^"},
    {"color": RED, "marker": "v"},
]
PAPER: dict[str, Any] = {"color": RED, "marker": "s", "linestyle": "none", "fillstyle": "none"}


@rc_context(STYLE)
def gap_plot(panel: PanelResult, curve: Curve | None) -> Figure:
    """Gap against W_S with its 95 % interval, the paper's values and the fitted curve."""
    figure, axes = new_figure(3.0)
    _draw_gaps(axes, panel)
    if curve is not None and curve.bounded:
        sizes = [row.w_s for row in random_rows_of(panel)]
        x = np.logspace(np.log10(min(sizes)), np.log10(max(sizes)), 100)
        axes.plot(x, curve.full.mean * x / (x + curve.half), "--", color=GREEN, marker="", label="fit")
    axes.set_xlabel("W_S, pre-training paragraphs")
    axes.set_ylabel("gap")
    return add_legend(figure)


@rc_context(STYLE)
def gaps_plot(panels: Sequence[PanelResult], beside: Mapping[str, tuple[str, PanelResult]]) -> Figure:
    """Gap against W_S for all tasks, the paper's values among ours.

    Args:
        panels: of one task each.
        beside: the same panels at other sizes with their preset, by name; may lack some.
    """
    lines = -(-len(panels) // 2)
    figure = Figure(figsize=(WIDTH, 0.7 + 1.9 * lines))
    grid = figure.subplots(lines, 2, sharex=True, sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_gaps(axes, panel)
        if panel.name in beside:
            preset, other = beside[panel.name]
            axes.plot(*gap_points(other), "v", color=ORANGE, zorder=3, label=f"ours, preset {preset}")
        # Not part of the layout, which would make room for a title by making the axes narrow.
        axes.set_title(panel.heading, fontsize=9, loc="left").set_in_layout(False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel("W_S, pre-training paragraphs", fontsize="medium")
    for axes in grid[:, 0]:
        axes.set_ylabel("gap")
    entries: dict[str, Any] = {}
    for axes in grid.flat[: len(panels)]:
        entries |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=2)
    return figure


def gap_points(panel: PanelResult) -> tuple[list[int], list[float]]:
    """W_S and mean gap of the rows with random W_S, also of those with a single trial."""
    rows = [row for row in panel.rows if row.spec.w_s.select in ("random", "all")]
    points = [(row.w_s, row.gap) for row in rows if row.gap is not None]
    return [w_s for w_s, _ in points], [gap for _, gap in points]


def _draw_gaps(axes: Axes, panel: PanelResult) -> None:
    """Gap against W_S with its 95 % interval, and the paper's values."""
    rows = random_rows_of(panel)
    gaps = [row.gap or 0.0 for row in rows]
    found = [row.gap_interval or Interval(gap, gap, gap) for row, gap in zip(rows, gaps, strict=True)]
    axes.errorbar(
        [row.w_s for row in rows],
        gaps,
        [[each.mean - each.low for each in found], [each.high - each.mean for each in found]],
        fmt="o-",
        color=BLUE,
        capsize=3,
        label="measured, 95 % interval",
    )
    paper = [(row.paper.w_s, row.paper.gap) for row in panel.rows if row.paper.w_s and row.paper.gap]
    if paper:
        axes.plot(*zip(*paper, strict=True), label="paper (its own sizes)", **PAPER)
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 10k: the style writes no powers


@rc_context(STYLE)
def t_m_plot(panel: PanelResult) -> Figure:
    """Accuracy of each row against T_M; rows of one W_S are joined."""
    figure, axes = new_figure(2.8)
    rows = [row for row in panel.rows if row.coverage and row.accuracy]
    colors = [BLUE, ORANGE, GREEN, BLACK]
    for color, w_s in zip(colors, sorted({row.w_s for row in rows}, reverse=True), strict=False):
        same = sorted((row for row in rows if row.w_s == w_s), key=lambda row: row.coverage["t_m"])
        x = [row.coverage["t_m"] for row in same]
        y = [float(np.mean(row.accuracy)) for row in same]
        deviation = [float(np.std(row.accuracy, ddof=1)) if len(row.accuracy) > 1 else 0.0 for row in same]
        axes.errorbar(x, y, deviation, fmt="o-", color=color, capsize=3, label=f"W_S = {w_s:,}")
    paper = [
        (row.paper.t_m, row.paper.accuracy) for row in panel.rows if row.paper.t_m and row.paper.accuracy
    ]
    if paper:
        axes.plot(*zip(*paper, strict=True), label="paper", **PAPER)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("T_M, tokens of the task missing from W_S")
    axes.set_ylabel("test accuracy")
    return add_legend(figure)


def label_plot(accuracies: np.ndarray, labels: Sequence[str], paper_mean: float | None) -> Figure:
    """Accuracy of each label, best first, with its mean and the paper's (Figure 1)."""
    return bars_of_labels(accuracies, labels, {} if paper_mean is None else {"paper's mean": paper_mean}, 7)


@rc_context(STYLE)
def committee_plot(panel: PanelResult) -> Figure:
    """Accuracy of members, their committee and the deep models against milliseconds and against layers."""
    assert panel.committee is not None and panel.latency is not None
    figure = Figure(figsize=(WIDTH, 3.1))
    by_time, by_layers = figure.subplots(1, 2, sharey=True)
    deep = panel.with_role("deep")
    points: list[tuple[str, str, int, Sequence[float], dict[str, Any]]] = [
        (row.spec.name, "member", row.layer_count, row.accuracy, {"color": BLUE, "marker": "o"})
        for row in panel.with_role("member")
    ]
    for row, style in zip(deep, DEEP_STYLES, strict=False):
        label = "deep model" if len(deep) == 1 else f"deep, {row.spec.name.replace('-', ' ')}"
        points.append((row.spec.name, label, row.layer_count, row.accuracy, style))
    committee = panel.committee["trials"]
    style = {"color": GREEN, "marker": "D"}
    points.append(("committee", "committee", panel.committee_layers, committee, style))
    seen = set()
    for name, label, layers, accuracies, style in points:
        if not accuracies:
            continue
        y, deviation = np.mean(accuracies), np.std(accuracies, ddof=1) if len(accuracies) > 1 else 0.0
        milliseconds = panel.latency["ms"][name]["p50"]
        shown = None if label in seen else label
        by_time.errorbar(milliseconds, y, deviation, capsize=3, linestyle="none", label=shown, **style)
        by_layers.errorbar(layers, y, deviation, capsize=3, linestyle="none", **style)
        seen.add(label)
    paper = [(row.layer_count, row.paper.accuracy) for row in panel.rows if row.paper.accuracy]
    if panel.spec.committee is not None:
        paper.append((panel.committee_layers, panel.spec.committee))
    if paper:
        by_layers.plot(*zip(*paper, strict=True), label="paper", **PAPER)
    for axes in (by_time, by_layers):
        axes.margins(x=0.1)
        axes.set_xlim(left=0)
    by_layers.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    by_time.set_xlabel("milliseconds per text")
    by_layers.set_xlabel("layers")
    by_time.set_ylabel("test accuracy")
    return add_legend(figure, 2)


@rc_context(STYLE)
def size_plot(panel: PanelResult) -> Figure:
    """Accuracy of random committees against their size."""
    assert panel.committee is not None
    figure, axes = new_figure(2.8)
    sizes = panel.committee["sizes"]
    x = [one["size"] for one in sizes]
    y = np.array([one["mean"] for one in sizes])
    deviation = np.array([one["sd"] for one in sizes])
    axes.plot(x, y, color=GREEN, label="mean of random committees")
    axes.fill_between(x, y - deviation, y + deviation, color=GREEN, alpha=0.2, linewidth=0, label="± 1 sd")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("members, out of all stored")
    axes.set_ylabel("test accuracy")
    return add_legend(figure)


@rc_context(STYLE)
def scatter_plot(x: Sequence[float], y: Sequence[float], groups: Sequence[str], x_label: str) -> Figure:
    """Gap of each row against a predictor, a colour for each task."""
    figure, axes = new_figure(2.8)
    for group, color in zip(dict.fromkeys(groups), (BLUE, ORANGE, GREEN, RED, BLACK), strict=False):
        inside = [i for i, each in enumerate(groups) if each == group]
        axes.plot([x[i] for i in inside], [y[i] for i in inside], "o", color=color, label=group)
    axes.set_xlabel(x_label)
    axes.set_ylabel("gap")
    return add_legend(figure)


@rc_context(STYLE)
def saturation_plot(curves: Sequence[tuple[PanelResult, Curve]]) -> Figure:
    """The share of the full gap that W_S reaches, a colour for each panel, with the fitted curves."""
    figure, axes = new_figure(3.0)
    for (panel, curve), color in zip(curves, (BLUE, ORANGE, GREEN, RED, BLACK), strict=False):
        sizes, gaps = gap_points(panel)
        shares = np.array(gaps) / curve.full.mean
        axes.plot(sizes, shares, "o", color=color, label=panel.heading)
        if curve.bounded:
            x = np.logspace(np.log10(min(sizes)), np.log10(max(sizes)), 100)
            axes.plot(x, x / (x + curve.half), "-", color=color, marker="")
    axes.axhline(0.9, color=BLACK, linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("W_S, pre-training paragraphs")
    axes.set_ylabel("share of the full gap")
    return add_legend(figure)


@rc_context(STYLE)
def heads_plot(alone: np.ndarray, kept: np.ndarray) -> Figure:
    """Accuracy of single heads by label, and of the heads kept.

    Args:
        alone: `[heads, labels]`.
        kept: `[trials, heads + 1]`.
    """
    figure = Figure(figsize=(WIDTH, 2.9))
    matrix, curve = figure.subplots(1, 2)
    image = matrix.imshow(alone, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, ax=matrix)
    matrix.grid(False)
    matrix.set_xlabel("label")
    matrix.set_ylabel("head")
    x = range(kept.shape[1])
    for trial in kept:
        curve.plot(x, trial, "-", color=BLUE, alpha=0.3, marker="")
    curve.plot(x, kept.mean(0), "o-", color=BLUE)
    curve.set_xlabel("heads kept")
    curve.set_ylabel("test accuracy")
    for axis in (matrix.xaxis, matrix.yaxis, curve.xaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return figure


def depth_plot(rows: Sequence[RowResult]) -> Figure:
    """Accuracy against the number of layers."""
    layers = [row.layer_count for row in rows]
    figure = _accuracy_plot(rows, layers, "layers")
    figure.axes[0].set_xticks(layers)
    return figure


def memory_plot(rows: Sequence[RowResult], megabytes: Sequence[float]) -> Figure:
    """Accuracy against the memory of the weights."""
    return _accuracy_plot(rows, megabytes, "megabytes of weights")


def absent_plot(rows: Sequence[RowResult]) -> Figure:
    """Accuracy against the share of T_W that the task lacks."""
    shares = [row.coverage["absent_from_task"] / row.coverage["t_w"] for row in rows]
    return _accuracy_plot(rows, shares, "share of T_W outside T_C")


@rc_context(STYLE)
def _accuracy_plot(rows: Sequence[RowResult], x: Sequence[float], label: str) -> Figure:
    figure, axes = new_figure(2.8)
    means = [float(np.mean(row.accuracy)) for row in rows]
    deviations = [float(np.std(row.accuracy, ddof=1)) if len(row.accuracy) > 1 else 0.0 for row in rows]
    axes.errorbar(x, means, deviations, fmt="o-", color=BLUE, capsize=3)
    axes.set_xlabel(label)
    axes.set_ylabel("test accuracy")
    return figure
