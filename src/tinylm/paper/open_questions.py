"""Questions that the paper leaves open, examined on the stored results.

Each has an answer in a sentence or two, which follows from the figures and their intervals; the tables and
plots behind it come after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from tinylm.paper import plots
from tinylm.paper.claims import MARGIN, random_rows_of
from tinylm.paper.spec import Analysis
from tinylm.paper.statistics import (
    RESAMPLES,
    Curve,
    difference,
    fit_curve,
    interval,
    rank_correlation,
    resampled_rows,
    slope,
)
from tinylm.paper.view import PanelResult, RowResult, TableResult, independent
from tinylm.report.document import Block, Grid, Plot, Points, Section, Text
from tinylm.report.format import Interval, interval_words, mean_deviation, percent, signed

PREDICTORS = {
    "T_M": lambda row: -row.coverage["t_m"],
    "frequency-weighted overlap": lambda row: row.coverage["weighted_overlap"],
    "W_S": lambda row: row.w_s,
}


@dataclass(frozen=True)
class Finding:
    """An answer, and what it follows from."""

    answer: str
    blocks: list[Block]


@dataclass(frozen=True)
class Question:
    """An open question that was run."""

    title: str
    finding: Finding

    @property
    def section(self) -> Section:
        """As a section of the report, the answer first."""
        answer = Text(f"**Answer.** {self.finding.answer}")
        return Section(f"Open question: {self.title}", blocks=[answer, *self.finding.blocks])


NOT_RUN = Finding("Not run.", [])


def open_questions(tables: Sequence[TableResult]) -> list[Question]:
    """The open questions that were run."""
    questions = []
    for table in tables:
        if table.spec.analysis:
            used = [other for other in tables if other.name in table.spec.uses]
            panels = [panel for other in used for panel in other.panels] or table.panels
            questions.append(Question(table.spec.title, ANALYSES[table.spec.analysis](table.name, panels)))
    return questions


def _weighted_overlap(table: str, panels: Sequence[PanelResult]) -> Finding:
    points = _points(panels)
    if len(points) < 4:
        return Finding("Too few rows with a gap were run.", [])
    tasks = [panel.task_name for panel, _ in points]
    rows_of = [row for _, row in points]
    gaps = [(np.array(row.arm) - np.mean(row.without)).tolist() for row in rows_of]
    predictors = np.array([[float(of(row)) for row in rows_of] for of in PREDICTORS.values()])

    def correlations(rows: np.ndarray, means: np.ndarray) -> np.ndarray:
        """Of each predictor, the same at equal W_S, and how much more the overlap has than T_M, `[7]`."""
        drawn, of = predictors[:, rows], [tasks[row] for row in rows]
        plain = [_within(x, means, of) for x in drawn]
        partial = [_within(x, means, of, drawn[-1]) for x in drawn[:-1]]
        return np.array([*plain, *partial, plain[1] - plain[0], partial[1] - partial[0]])

    found = resampled_rows(correlations, gaps, tasks, RESAMPLES // 2)
    plain, partial, (better, better_partial) = found[:3], found[3:5], found[5:]
    grid = [
        [name, _correlation(each), _correlation(beside) if beside else ""]
        for name, each, beside in zip_longest(PREDICTORS, plain, partial)
    ]
    grid.append(["overlap minus T_M", _correlation(better), _correlation(better_partial)])
    finding = _either(
        better,
        "The overlap by frequency predicts the gap better than the plain T_M",
        "The plain T_M predicts the gap better than the overlap by frequency",
        "No difference between the plain T_M and the overlap by frequency is shown",
    )
    answer = (
        f"{finding}: rank correlations with the gap of {signed(plain[0].mean, 2)} for T_M and"
        f" {signed(plain[1].mean, 2)} for the overlap, difference {_correlation(better)}; at equal W_S"
        f" {signed(partial[0].mean, 2)} and {signed(partial[1].mean, 2)}."
    )
    missing = [1 - row.coverage["weighted_overlap"] for row in rows_of]
    groups = tasks if len(set(tasks)) > 1 else [f"W_S = {row.w_s:,}" for row in rows_of]
    figure = plots.scatter_plot(
        missing, [float(np.mean(each)) for each in gaps], groups, "share of the task's tokens not in W_S"
    )
    return Finding(
        answer,
        [
            Grid(
                ["predictor", "rank correlation with the gap", "partial, at equal W_S"],
                grid,
                f"{len(rows_of)} rows with a gap, {_tasks(len(set(tasks)))}; correlations within each task,"
                " averaged by rows. T_M has a minus sign, so that a good predictor has a correlation near +1."
                " Intervals from resampled rows, and in each of them resampled pre-trainings.",
            ),
            Plot(table, figure, "Gap of each row against its weighted lack of overlap.", answer),
        ],
    )


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _either(found: Interval | None, above: str, below: str, neither: str, bound: float = 0.0) -> str:
    """Which of three sentences an interval supports."""
    if found is not None and found.low > bound:
        return above
    return below if found is not None and found.high < bound else neither


def _difference_words(first: Sequence[float], second: Sequence[float]) -> str:
    """A difference with its interval, or how many trials it has where it has none."""
    found = difference(first, second)
    if found is not None:
        return interval_words(found)
    return f"{signed(float(np.mean(first) - np.mean(second)))} (one trial, no interval)"


def _correlation(found: Interval) -> str:
    mean, low, high = (signed(value, 2) for value in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}]"


def _points(panels: Sequence[PanelResult]) -> list[tuple[PanelResult, RowResult]]:
    """Rows with a gap; a row that several tables share counts once."""
    found: dict[str, tuple[PanelResult, RowResult]] = {}
    for panel in panels:
        for row in panel.rows:
            if row.gap is not None:
                found.setdefault(row.key, (panel, row))
    return list(found.values())


def _within(x: np.ndarray, y: np.ndarray, tasks: Sequence[str], beside: np.ndarray | None = None) -> float:
    """Rank correlation within each task, averaged by the number of its rows; `beside` is held equal."""
    total, weight = 0.0, 0
    for task in dict.fromkeys(tasks):
        inside = [i for i, each in enumerate(tasks) if each == task]
        if len(inside) > 2:
            held = None if beside is None else beside[inside].tolist()
            total += len(inside) * rank_correlation(x[inside].tolist(), y[inside].tolist(), held)
            weight += len(inside)
    return total / weight if weight else 0.0


def _gap_curve(table: str, panels: Sequence[PanelResult]) -> Finding:
    grid, curves, reached = [], [], []
    for panel in panels:
        curve = curve_of(panel)
        if curve is None:
            continue
        curves.append((panel, curve))
        if curve.bounded:
            w_s = f"{curve.w_s_90.mean:,.0f} [{curve.w_s_90.low:,.0f}, {curve.w_s_90.high:,.0f}]"
            reached.append(f"{w_s} ({panel.heading})")
        else:
            w_s = "not determined by these W_S"
        full = f"{curve.full.mean:.3f} [{curve.full.low:.3f}, {curve.full.high:.3f}]"
        grid.append([panel.heading, full, w_s])
    if not grid:
        return Finding("Too few W_S were run.", [])
    answer = f"90 % of the full gap are reached at W_S {', '.join(reached)}." if reached else ""
    lost = len(grid) - len(reached)
    if lost:
        answer += f" For {_tasks(lost)} the W_S that were run do not determine it."
    return Finding(
        answer.strip(),
        [
            Grid(
                ["task", "full gap", "W_S for 90 % of it"],
                grid,
                "Fitted: gap = full x W_S / (W_S + half), whose 90 % are reached at 9 x half. Intervals from"
                " resampled pre-trainings.",
            ),
            Plot(
                f"{table}-share",
                plots.saturation_plot(curves),
                "Share of the fitted full gap that each W_S reaches; the line is at 90 %.",
                "; ".join(f"{line[0]}: 90 % at W_S {line[2]}" for line in grid),
            ),
        ],
    )


def curve_of(panel: PanelResult) -> Curve | None:
    """The curve of the gap against W_S; None for fewer than three W_S with an interval."""
    rows = [row for row in random_rows_of(panel) if row.gap_interval is not None]
    if len(rows) < 3:
        return None
    return fit_curve([row.w_s for row in rows], [row.arm for row in rows], rows[0].without)


def _reverse_mismatch(table: str, panels: Sequence[PanelResult]) -> Finding:
    answers, blocks = [], list[Block]()
    for panel in panels:
        rows = sorted((row for row in panel.rows if row.accuracy), key=_absent)
        if not rows:
            continue
        grid = [
            [
                row.spec.name,
                f"{row.w_s:,}",
                f"{row.coverage['t_m']:,}",
                f"{row.coverage['absent_from_task']:,}",
                percent(_absent(row)),
                "" if row.absent_share is None else f"{row.absent_share:.1%}",
                f"{row.coverage['weighted_overlap']:.4f}",
                mean_deviation(row.accuracy),
            ]
            for row in rows
        ]
        head = ["row", "W_S", "T_M", "tokens of T_W not in T_C", "their share of T_W",
                "their share of all occurrences", "overlap", "Acc."]  # fmt: skip
        blocks.append(Grid(head, grid))
        shares = [_absent(row) for row in rows for _ in row.arm]
        line = slope(shares, [accuracy for row in rows for accuracy in row.arm])
        if line is not None:
            span = max(shares) - min(shares)
            change = Interval(span * line.mean, span * line.low, span * line.high)
            verdict = _either(
                change,
                "Tokens that the task lacks help",
                "Tokens that the task lacks do harm",
                "No harm of tokens that the task lacks is shown",
            )
            answers.append(
                f"{verdict}: from {percent(min(shares))} to {percent(max(shares))} of T_W outside T_C,"
                f" accuracy changes by {interval_words(change)} (straight line over all pre-trainings)."
            )
        if len(rows) > 2:
            words = "Accuracy against the share of T_W that the task lacks; bars are one standard deviation."
            blocks.append(Plot(f"{table}-share", plots.absent_plot(rows), words, words))
    return Finding(" ".join(answers) or "Too few rows were run.", blocks) if blocks else NOT_RUN


def _absent(row: RowResult) -> float:
    """Share of T_W that the task lacks."""
    return float(row.coverage["absent_from_task"] / row.coverage["t_w"])


def _depth(table: str, panels: Sequence[PanelResult]) -> Finding:
    answers, blocks = [], list[Block]()
    for panel in panels:
        rows = sorted((row for row in panel.rows if row.accuracy), key=lambda row: row.layer_count)
        if not rows:
            continue
        shallow, deep = rows[0], rows[-1]
        found = difference(shallow.arm, deep.arm)
        if shallow is not deep:
            best = max(rows, key=lambda row: float(np.mean(row.arm)))
            verdict = _either(
                found, "the shallow one is better", "the deep one is better", "no difference is shown"
            )
            answers.append(
                f"{panel.task_name}: {shallow.spec.name} minus {deep.spec.name}"
                f" {_difference_words(shallow.arm, deep.arm)},"
                f" {verdict}; {best.spec.name} has the highest mean."
            )
        grid = [
            [row.spec.name, row.architecture, str(row.layer_count),
             "" if row.seconds is None else f"{row.seconds:.0f}", mean_deviation(row.accuracy)]
            for row in rows
        ]  # fmt: skip
        blocks += [
            Text(f"**{panel.spec.title}**"),
            Grid(
                ["row", "architecture here", "layers", "seconds", "Acc."],
                grid,
                "All rows have the arithmetic of the deepest, by more epochs; seconds are those measured.",
            ),
        ]
        if len(rows) > 1:
            figure = plots.depth_plot(rows)
            words = "; ".join(f"{row.spec.name} {mean_deviation(row.accuracy)}" for row in rows)
            caption = (
                "Accuracy against the number of layers, all trained for the same arithmetic; bars are one"
                " standard deviation."
            )
            blocks.append(Plot(f"{table}-{panel.spec.name}", figure, caption, words))
    return Finding(" ".join(answers) or "Too few rows were run.", blocks) if blocks else NOT_RUN


def _single_head(table: str, panels: Sequence[PanelResult]) -> Finding:
    answers, blocks = [], list[Block]()
    for panel in panels:
        for row in panel.rows:
            if not row.single_heads:
                continue
            kept = np.array([of["kept"] for of in row.single_heads])  # [trials, heads + 1]
            alone = np.array([of["alone"] for of in row.single_heads])  # [trials, heads, labels]
            heads = kept.shape[1] - 1
            accuracies = np.sort(alone.mean(2), axis=1)[:, ::-1].mean(0)
            # With this many of the best heads, no more than a hundredth is lost.
            enough = int(np.argmax(kept.mean(0) >= kept.mean(0)[-1] - MARGIN))
            specialists = len(set(alone[0].argmax(0).tolist()))
            answers.append(
                f"{row.spec.name} ({row.architecture}): one of {heads} heads alone has {accuracies[0]:.3f}"
                f" (the best) to {accuracies[-1]:.3f} (the weakest), none {kept.mean(0)[0]:.3f}, all"
                f" {kept.mean(0)[-1]:.3f}; the best {enough} lose no more than {MARGIN}."
            )
            blocks += [
                Grid(
                    ["heads kept", *map(str, range(heads + 1))],
                    [[row.spec.name, *(f"{value:.3f}" for value in kept.mean(0))]],
                    "Accuracy; the weakest are pruned first, by their accuracy alone on validation texts."
                    f" {specialists} heads are the best at some label (trial 1).",
                ),
                Plot(
                    f"{table}-{row.spec.name}",
                    plots.heads_plot(alone[0], kept),
                    "Left: accuracy of each label with one head alone, trial 1. Right: accuracy against the"
                    " heads kept, each trial and their mean.",
                    f"From {kept.mean(0)[0]:.3f} without any head to {kept.mean(0)[-1]:.3f} with all.",
                ),
            ]
    return Finding(" ".join(answers), blocks) if blocks else NOT_RUN


def _reduced_vocabulary(table: str, panels: Sequence[PanelResult]) -> Finding:
    answers, blocks = [], list[Block]()
    for panel in panels:
        rows = [row for row in panel.rows if row.accuracy and row.parameters and row.seconds]
        if len(rows) < 2:
            continue
        full, reduced = rows[:2]
        lost = difference(full.arm, reduced.arm)
        verdict = _either(lost, "a loss is shown", "a gain is shown", "no difference is shown")
        answers.append(
            f"{panel.task_name}: {percent(_megabytes(reduced) / _megabytes(full))} of the memory and"
            f" {percent((reduced.seconds or 0) / (full.seconds or 1))} of the seconds; accuracy of full minus"
            f" reduced {_difference_words(full.arm, reduced.arm)}, {verdict}."
        )
        grid = [
            [
                row.spec.name,
                f"{row.coverage['t_w']:,}",
                f"{row.parameters:,}",
                f"{_megabytes(row):.1f}",
                f"{row.seconds:.0f}",
                mean_deviation(row.accuracy),
            ]
            for row in rows
        ]
        head = ["row", "T_W", "parameters", "MB", "seconds", "Acc."]
        words = "; ".join(
            f"{row.spec.name}: {_megabytes(row):.1f} MB, {mean_deviation(row.accuracy)}" for row in rows
        )
        caption = "Accuracy against the memory of the weights; bars are one standard deviation."
        figure = plots.memory_plot(rows, [_megabytes(row) for row in rows])
        blocks += [
            Text(f"**{panel.spec.title}**"),
            Grid(head, grid, "MB: of 4 bytes each."),
            Plot(f"{table}-{panel.spec.name}", figure, caption, words),
        ]
    return Finding(" ".join(answers), blocks) if blocks else NOT_RUN


def _megabytes(row: RowResult) -> float:
    return 4 * (row.parameters or 0) / 1e6


def _overlap_control(table: str, panels: Sequence[PanelResult]) -> Finding:
    lengths, tokens, blocks = list[Interval](), list[Interval](), list[Block]()
    for panel in panels:
        rows = [row for row in panel.rows if row.accuracy and row.coverage]
        if not rows:
            continue
        grid = [
            [
                row.spec.name,
                f"{row.w_s:,}",
                "" if row.mean_tokens is None else f"{row.mean_tokens:.0f}",
                f"{row.coverage['t_m']:,}",
                f"{row.coverage['weighted_overlap']:.4f}",
                mean_deviation(row.accuracy),
            ]
            for row in rows
        ]
        blocks.append(Text(f"**{panel.spec.title}**"))
        blocks.append(Grid(["row", "W_S", "tokens of a paragraph", "T_M", "overlap", "Acc."], grid))
        by_length, by_tokens, points = _parts_of_the_harm(rows)
        lengths, tokens = lengths + by_length, tokens + by_tokens
        blocks += [Points(points)] if points else []
        name = f"{table}-{panel.spec.name}-t_m"
        words = f"Accuracy against T_M, {panel.name}; bars are one standard deviation."
        blocks.append(Plot(name, plots.t_m_plot(panel), words, words))
    if not blocks:
        return NOT_RUN
    answer = (
        f"Missing tokens do harm in {_shown_in(tokens)}, shorter paragraphs in {_shown_in(lengths)}, by the"
        " intervals of accuracy with paragraphs of equal lengths."
    )
    return Finding(answer, blocks)


def _shown_in(found: Sequence[Interval]) -> str:
    """How often a difference is shown, and its range."""
    if not found:
        return "no comparison that has an interval"
    means = sorted(each.mean for each in found)
    shown = sum(each.low > 0 for each in found)
    ends = dict.fromkeys(map(signed, (means[0], means[-1])))
    return f"{shown} of {len(found)} comparisons ({' to '.join(ends)})"


def _parts_of_the_harm(rows: Sequence[RowResult]) -> tuple[list[Interval], list[Interval], list[str]]:
    """What the lengths of paragraphs do, what their tokens do, and both in words."""
    lengths, tokens, points = list[Interval](), list[Interval](), list[str]()

    def compare(what: str, first: RowResult, second: RowResult, among: list[Interval]) -> None:
        found = difference(first.arm, second.arm)
        if found is not None:
            among.append(found)
        shown = _either(found, "harm is **shown**", "the opposite is **shown**", "harm is **not shown**")
        points.append(f"{what}: {_difference_words(first.arm, second.arm)}; {shown}.")

    for control in rows:
        strict = next((row for row in rows if row.spec.w_s.select == control.spec.w_s.lengths_of), None)
        plain = next(
            (row for row in rows if row.spec.w_s.select == "random" and row.w_s == control.w_s), None
        )
        if strict is None:
            continue
        if plain is not None:
            what = "random minus the same lengths: what shorter paragraphs do"
            compare(what, plain, control, lengths)
        what = f"the same lengths minus {strict.spec.name}: what its tokens do"
        compare(what, control, strict, tokens)
    return lengths, tokens, points


def _committee_size(table: str, panels: Sequence[PanelResult]) -> Finding:
    answers, blocks = [], list[Block]()
    for panel in panels:
        committee = panel.committee
        if committee is None:
            continue
        sizes = {one["size"]: one for one in committee["sizes"]}
        most = max(sizes)
        enough = min(size for size in sizes if sizes[size]["mean"] >= sizes[most]["mean"] - MARGIN)
        shown = dict.fromkeys(size for size in (1, 2, 3, 5, 10, 15, 20, 25, most) if size in sizes)
        answers.append(
            f"{panel.task_name}: {sizes[1]['mean']:.3f} with one member, {sizes[most]['mean']:.3f} with"
            f" {most}; {enough} are enough to lose no more than {MARGIN}."
        )
        blocks += [
            Text(f"**{panel.spec.title}**"),
            Grid(
                ["members", *map(str, shown)],
                [["accuracy", *(f"{sizes[size]['mean']:.3f}" for size in shown)]],
                f"Mean of random committees out of all {most} stored members.",
            ),
        ]
        figure = plots.size_plot(panel)
        words = f"From {sizes[1]['mean']:.3f} for one member to {sizes[most]['mean']:.3f} for all."
        blocks.append(
            Plot(
                f"{table}{panel.spec.name and '-' + panel.spec.name}", figure, f"{panel.name}: {words}", words
            )
        )
        twins = ", ".join(f"{name} {value:.3f}" for name, value in committee["twins"].items())
        points = [
            f"Committees of trials of one architecture: {twins}; of {len(committee['names'])} different"
            f" architectures, mean of the trials: {np.mean(committee['trials']):.3f}."
        ]
        if "subsets" in committee:
            answer, more = _subsets(committee, panel.with_role("member"))
            answers.append(answer)
            points += more
        else:
            points.append("No subset was chosen, as no validation texts were left.")
        blocks.append(Points(points))
    return Finding(" ".join(answers), blocks) if blocks else NOT_RUN


def _subsets(committee: dict[str, Any], members: Sequence[RowResult]) -> tuple[str, list[str]]:
    """Whether choosing members by validation texts helps, in a sentence and in figures."""
    subsets, names = committee["subsets"], committee["names"]
    chosen = ", ".join(names[i] for i in subsets["chosen"])
    differences = np.subtract(subsets["chosen_test"], subsets["all_members_test"])
    numbers = committee.get("counted", committee["numbers"])  # earlier records rest on all trials
    by_trial = dict(zip(numbers, differences.tolist(), strict=True))
    found = interval(independent(by_trial, *members))
    verdict = _either(found, "is shown to help", "is shown to harm", "is not shown to help")
    words = interval_words(found) or f"{signed(float(np.mean(differences)))} (one trial, no interval)"
    answer = f"Choosing members on validation texts {verdict}: {words}."
    if len(subsets["chosen"]) == len(names):
        answer = "On validation texts, no subset is better than all members."
    return answer, [
        f"Best on {subsets['validation_texts']:,} validation texts (mean of the trials): {chosen}.",
        f"Its test accuracy is {np.mean(subsets['chosen_test']):.3f}, that of all {len(names)} members"
        f" {np.mean(subsets['all_members_test']):.3f}; difference {words}.",
        f"Chosen again in each trial, the subset has {np.mean(subsets['chosen_by_trial_test']):.3f}.",
    ]


ANALYSES: dict[Analysis, Callable[[str, Sequence[PanelResult]], Finding]] = {
    "weighted-overlap": _weighted_overlap,
    "gap-curve": _gap_curve,
    "reverse-mismatch": _reverse_mismatch,
    "depth": _depth,
    "single-head": _single_head,
    "reduced-vocabulary": _reduced_vocabulary,
    "overlap-control": _overlap_control,
    "committee-size": _committee_size,
}
