"""The plots of the paper's report, in the demo's style, as figures for SVG and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tinylm.paper.claims import random_rows_of
from tinylm.paper.statistics import Curve, interval
from tinylm.paper.view import PanelResult
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
    rows = random_rows_of(panel)
    found = [interval(row.gaps) for row in rows]
    means = [one.mean for one in found if one]
    spread = [[one.mean - one.low for one in found if one], [one.high - one.mean for one in found if one]]
    sizes = [row.w_s for row in rows]
    axes.errorbar(sizes, means, spread, fmt="o-", color=BLUE, capsize=3, label="measured, 95 % interval")
    paper = [
        (row.paper.w_s, row.paper.gap) for row in panel.rows if row.paper.w_s and row.paper.gap is not None
    ]
    if paper:
        axes.plot(*zip(*paper, strict=True), label="paper (its own sizes)", **PAPER)
    if curve is not None and curve.bounded:
        x = np.logspace(np.log10(min(sizes)), np.log10(max(sizes)), 100)
        axes.plot(x, curve.full.mean * x / (x + curve.half), "--", color=GREEN, marker="", label="fit")
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("W_S, pre-training paragraphs")
    axes.set_ylabel("gap")
    return add_legend(figure)


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
        if len(accuracies) < 2:
            continue
        y, deviation = np.mean(accuracies), np.std(accuracies, ddof=1)
        milliseconds = panel.latency["ms"][name]["p50"]
        shown = None if label in seen else label
        by_time.errorbar(milliseconds, y, deviation, capsize=3, linestyle="none", label=shown, **style)
        by_layers.errorbar(layers, y, deviation, capsize=3, linestyle="none", **style)
        seen.add(label)
    for axes in (by_time, by_layers):
        axes.margins(x=0.1)
        axes.set_xlim(left=0)
    by_layers.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_time.set_xlabel("milliseconds per text")
    by_layers.set_xlabel("layers")
    by_time.set_ylabel("test accuracy")
    return add_legend(figure, 3)


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
