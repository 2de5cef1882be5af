"""Questions that the paper leaves open, examined on the stored results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from tinylm.paper import plots
from tinylm.paper.claims import MARGIN, random_rows_of
from tinylm.paper.statistics import RESAMPLES, difference, fit_curve, interval, rank_correlation, resampled
from tinylm.paper.view import PanelResult, RowResult, TableResult, independent
from tinylm.report.document import Block, Grid, Plot, Points, Section, Text
from tinylm.report.format import Interval, interval_words, mean_deviation

PREDICTORS = {
    "T_M": lambda row: -row.coverage["t_m"],
    "frequency-weighted overlap": lambda row: row.coverage["weighted_overlap"],
    "W_S": lambda row: row.w_s,
}


def open_questions(tables: Sequence[TableResult]) -> list[Section]:
    """A section for each open question that was run."""
    sections = []
    for table in tables:
        used = [other for other in tables if other.name in table.spec.uses]
        panels = [panel for other in used for panel in other.panels] or table.panels
        analysis = table.spec.analysis
        blocks: list[Block] = []
        if analysis == "weighted-overlap":
            blocks = _weighted_overlap(table.name, panels)
        elif analysis == "gap-curve":
            blocks = _gap_curve(table.name, panels)
        elif analysis == "reverse-mismatch":
            blocks = _reverse_mismatch(table.panels)
        elif analysis == "depth":
            blocks = _depth(table.panels)
        elif analysis == "single-head":
            blocks = _single_head(table.panels)
        elif analysis == "reduced-vocabulary":
            blocks = _reduced_vocabulary(table.panels)
        elif analysis == "overlap-control":
            blocks = _overlap_control(table.panels)
        elif analysis == "committee-size":
            blocks = _committee_size(table.panels)
        if analysis:
            sections.append(Section(f"Open question: {table.spec.title}", blocks=blocks))
    return sections


def _weighted_overlap(table: str, panels: Sequence[PanelResult]) -> list[Block]:
    points = _points(panels)
    if len(points) < 4:
        return [Text("Too few rows with a gap were run.")]
    tasks = [panel.task_name for panel, _ in points]
    rows_of = [row for _, row in points]
    gaps = [(np.array(row.arm) - np.mean(row.without)).tolist() for row in rows_of]
    predictors = [np.array([float(of(row)) for row in rows_of]) for of in PREDICTORS.values()]

    w_s = predictors[-1]

    def correlations(means: np.ndarray) -> np.ndarray:
        """Of each predictor, the same at equal W_S, and of the overlap more than T_M; `[6, resamples]`."""
        plain = [[_within(x, y, tasks) for y in means.T] for x in predictors]
        partial = [[_within(x, y, tasks, w_s) for y in means.T] for x in predictors[:-1]]
        found = np.array(plain + partial)
        return np.vstack([found, found[1] - found[0]])

    *all_of_them, better = resampled(correlations, gaps, RESAMPLES // 4)
    plain, partial = all_of_them[: len(predictors)], all_of_them[len(predictors) :]
    grid = [
        [name, _correlation(found), _correlation(beside) if beside else ""]
        for name, found, beside in zip_longest(PREDICTORS, plain, partial)
    ]
    if better.low > 0:
        finding = "the overlap by frequency predicts the gap better than the plain T_M"
    elif better.high < 0:
        finding = "the plain T_M predicts the gap better than the overlap by frequency"
    else:
        finding = "no difference between the two is shown"
    missing = [1 - row.coverage["weighted_overlap"] for row in rows_of]
    figure = plots.scatter_plot(
        missing, [float(np.mean(each)) for each in gaps], tasks, "share of the task's tokens not in W_S"
    )
    return [
        Text(
            f"{len(rows_of)} rows with a gap, over {len(set(tasks))} tasks. Rank correlation of the gap with"
            " each predictor, within each task (tasks are not compared) and averaged by rows:"
            f" **{finding}** (difference {better.mean:+.2f} [{better.low:+.2f}, {better.high:+.2f}])."
        ),
        Grid(
            ["predictor", "rank correlation with the gap", "partial, at equal W_S"],
            grid,
            "T_M has a minus sign here, so that a good predictor has a correlation near +1. Intervals from"
            " resampled pre-trainings. W_S is not an overlap, but both overlaps depend on it.",
        ),
        Plot(table, figure, "Gap of each row against its weighted lack of overlap.", finding),
    ]


def _correlation(found: Interval) -> str:
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _points(panels: Sequence[PanelResult]) -> list[tuple[PanelResult, RowResult]]:
    """Rows with a gap; a row that several tables share counts once."""
    seen = set()
    out = []
    for panel in panels:
        for row in panel.rows:
            if row.gap_interval is None:
                continue
            identity = (panel.task_name, tuple(row.accuracy))
            if identity not in seen:
                seen.add(identity)
                out.append((panel, row))
    return out


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


def _gap_curve(table: str, panels: Sequence[PanelResult]) -> list[Block]:
    grid, curves = [], []
    for panel in panels:
        rows = random_rows_of(panel)
        if len(rows) < 3:
            continue
        curve = fit_curve([row.w_s for row in rows], [row.arm for row in rows], rows[0].without)
        curves.append((panel, curve))
        if curve.bounded:
            w_s = f"{curve.w_s_90.mean:,.0f} [{curve.w_s_90.low:,.0f}, {curve.w_s_90.high:,.0f}]"
        else:
            w_s = "not determined by these W_S"
        grid.append(
            [
                panel.name,
                f"{curve.full.mean:.3f} [{curve.full.low:.3f}, {curve.full.high:.3f}]",
                w_s,
                str(len(rows)),
            ]
        )
    if not grid:
        return [Text("Too few W_S were run.")]
    return [
        Text(
            "Fitted: gap = full x W_S / (W_S + half), whose 90 % are reached at 9 x half. Intervals from"
            " resampled pre-trainings. The curves are drawn in the plots of the tables."
        ),
        Grid(["task", "full gap", "W_S for 90 % of it", "sizes"], grid),
        Plot(
            f"{table}-share",
            plots.saturation_plot(curves),
            "Share of the fitted full gap that each W_S reaches; the line is at 90 %.",
            "; ".join(f"{line[0]}: 90 % at W_S {line[2]}" for line in grid),
        ),
    ]


def _reverse_mismatch(panels: Sequence[PanelResult]) -> list[Block]:
    blocks: list[Block] = []
    for panel in panels:
        rows = [row for row in panel.rows if row.accuracy]
        if not rows:
            continue
        grid = [
            [
                row.spec.name,
                f"{row.w_s:,}",
                f"{row.coverage['t_m']:,}",
                f"{row.coverage['absent_from_task']:,}",
                f"{row.coverage['absent_from_task'] / row.coverage['t_w']:.0%}",
                "" if row.absent_share is None else f"{row.absent_share:.1%}",
                f"{row.coverage['weighted_overlap']:.4f}",
                mean_deviation(row.accuracy),
            ]
            for row in rows
        ]
        head = ["row", "W_S", "T_M", "tokens of T_W not in T_C", "their share of T_W",
                "their share of all occurrences", "overlap", "Acc."]  # fmt: skip
        blocks.append(Grid(head, grid))
        if len(rows) > 2:
            words = "Accuracy against the share of T_W that the task lacks; bars are one standard deviation."
            blocks.append(Plot(f"{panel.table}-share", plots.absent_plot(rows), words, words))
        for row in rows[1:]:
            found = difference(rows[0].arm, row.arm)
            if found is not None:
                shown = "shown" if found.low > 0 or found.high < 0 else "not shown"
                blocks.append(
                    Text(
                        f"{rows[0].spec.name} minus {row.spec.name}: {interval_words(found)};"
                        f" a difference is **{shown}**."
                    )
                )
    return blocks or [Text("Not run.")]


def _depth(panels: Sequence[PanelResult]) -> list[Block]:
    blocks: list[Block] = []
    for panel in panels:
        rows = sorted((row for row in panel.rows if row.accuracy), key=lambda row: row.layer_count)
        if not rows:
            continue
        grid = [
            [row.spec.name, row.architecture, str(row.layer_count),
             "" if row.seconds is None else f"{row.seconds:.0f}", mean_deviation(row.accuracy)]
            for row in rows
        ]  # fmt: skip
        blocks += [
            Text(f"**{panel.spec.title}.** Every model is trained for the arithmetic of the deepest."),
            Grid(["row", "architecture here", "layers", "seconds", "Acc."], grid),
            *_best_depth(rows),
            Plot(
                f"{panel.table}-{panel.spec.name}",
                plots.depth_plot(rows),
                "Accuracy against the number of layers, all trained for the same time; bars are one standard"
                " deviation.",
                "; ".join(f"{row.spec.name} {mean_deviation(row.accuracy)}" for row in rows),
            ),
        ]
    return blocks or [Text("Not run.")]


def _best_depth(rows: Sequence[RowResult]) -> list[Block]:
    deepest = next((row for row in rows if not row.spec.equal_seconds), None)
    best = max(rows, key=lambda row: float(np.mean(row.arm)))
    found = None if deepest is None else difference(best.arm, deepest.arm)
    if deepest is None or found is None:
        return []
    if best is deepest:
        return [Text(f"The best is the deepest, {best.spec.name}.")]
    better = "shown" if found.low > 0 else "not shown"
    return [
        Text(
            f"The best is {best.spec.name}, {interval_words(found)} beside {deepest.spec.name}: that fewer"
            f" blocks for more epochs are better is **{better}**. The best of several is chosen after the"
            " fact, which flatters it."
        )
    ]


def _single_head(panels: Sequence[PanelResult]) -> list[Block]:
    blocks: list[Block] = []
    for panel in panels:
        rows = [row for row in panel.rows if row.single_heads]
        for row in rows:
            kept = np.array([of["kept"] for of in row.single_heads])  # [trials, heads + 1]
            alone = np.array([of["alone"] for of in row.single_heads])  # [trials, heads, labels]
            heads = kept.shape[1] - 1
            accuracies = np.sort(alone.mean(2), axis=1)[:, ::-1].mean(0)
            # With this many of the best heads, no more than a hundredth is lost.
            enough = int(np.argmax(kept.mean(0) >= kept.mean(0)[-1] - MARGIN))
            specialists = len(set(alone[0].argmax(0).tolist()))
            blocks += [
                Text(
                    f"**{row.spec.name} ({row.architecture}).** One of {heads} heads alone has"
                    f" {accuracies[0]:.3f} (the best) to {accuracies[-1]:.3f} (the weakest), none"
                    f" {kept.mean(0)[0]:.3f}, all {kept.mean(0)[-1]:.3f}. The best {enough} are enough to"
                    f" lose no more than {MARGIN}; {specialists} heads are the best at some label (trial 1)."
                ),
                Grid(
                    ["heads kept", *map(str, range(heads + 1))],
                    [["accuracy", *(f"{value:.3f}" for value in kept.mean(0))]],
                    "The weakest are pruned first, by their accuracy alone on validation texts.",
                ),
                Plot(
                    f"{panel.table}-{row.spec.name}",
                    plots.heads_plot(alone[0], kept),
                    "Left: accuracy of each label with one head alone, trial 1. Right: accuracy against the"
                    " heads kept, each trial and their mean.",
                    f"From {kept.mean(0)[0]:.3f} without any head to {kept.mean(0)[-1]:.3f} with all.",
                ),
            ]
    return blocks or [Text("Not run.")]


def _reduced_vocabulary(panels: Sequence[PanelResult]) -> list[Block]:
    blocks: list[Block] = []
    for panel in panels:
        rows = [row for row in panel.rows if row.accuracy and row.parameters and row.seconds]
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
        if len(rows) < 2:
            continue
        blocks.append(Text(f"**{panel.spec.title}.**"))
        blocks.append(
            Grid(["row", "T_W", "parameters", "MB", "seconds", "Acc."], grid, "MB: of 4 bytes each.")
        )
        full, reduced = rows[:2]
        lost = difference(full.arm, reduced.arm)
        shown = "shown" if lost is not None and (lost.low > 0 or lost.high < 0) else "not shown"
        blocks.append(
            Text(
                f"The smaller vocabulary takes {_megabytes(reduced) / _megabytes(full):.0%} of the memory and"
                f" {(reduced.seconds or 0) / (full.seconds or 1):.0%} of the seconds. Accuracy of full minus"
                f" reduced: {interval_words(lost)}; a difference is **{shown}**."
            )
        )
        words = "; ".join(
            f"{row.spec.name}: {_megabytes(row):.1f} MB, {mean_deviation(row.accuracy)}" for row in rows
        )
        caption = "Accuracy against the memory of the weights; bars are one standard deviation."
        figure = plots.memory_plot(rows, [_megabytes(row) for row in rows])
        blocks.append(Plot(f"{panel.table}-{panel.spec.name}", figure, caption, words))
    return blocks or [Text("Not run.")]


def _megabytes(row: RowResult) -> float:
    return 4 * (row.parameters or 0) / 1e6


def _overlap_control(panels: Sequence[PanelResult]) -> list[Block]:
    blocks: list[Block] = []
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
        blocks.append(Text(f"**{panel.spec.title}.**"))
        blocks.append(Grid(["row", "W_S", "tokens of a paragraph", "T_M", "overlap", "Acc."], grid))
        blocks += _shares_of_the_harm(rows)
        name = f"{panel.table}-{panel.spec.name}-t_m"
        words = f"Accuracy against T_M, {panel.name}; bars are one standard deviation."
        blocks.append(Plot(name, plots.t_m_plot(panel), words, words))
    return blocks or [Text("Not run.")]


def _shares_of_the_harm(rows: Sequence[RowResult]) -> list[Block]:
    """What the lengths of paragraphs do, and what is left for their tokens."""
    points = []
    for control in rows:
        strict = next((row for row in rows if row.spec.w_s.select == control.spec.w_s.lengths_of), None)
        plain = next(
            (row for row in rows if row.spec.w_s.select == "random" and row.w_s == control.w_s), None
        )
        if strict is None:
            continue
        name = strict.spec.name
        if plain is not None:
            points += _one_share("random minus the same lengths: what shorter paragraphs do", plain, control)
        points += _one_share(f"the same lengths minus {name}: what its tokens do", control, strict)
    return [Points(points)] if points else []


def _one_share(what: str, first: RowResult, second: RowResult) -> list[str]:
    found = difference(first.arm, second.arm)
    if found is None:
        return []
    shown = "shown" if found.low > 0 or found.high < 0 else "not shown"
    return [f"{what}: {interval_words(found)}; a difference is **{shown}**."]


def _committee_size(panels: Sequence[PanelResult]) -> list[Block]:
    blocks: list[Block] = []
    for panel in panels:
        committee = panel.committee
        if committee is None:
            continue
        sizes = {one["size"]: one for one in committee["sizes"]}
        shown = [size for size in (1, 2, 3, 5, 10, 15, 20, 25, max(sizes)) if size in sizes]
        blocks.append(
            Text(f"**{panel.spec.title}.** Random committees out of all {max(sizes)} stored members:")
        )
        blocks.append(
            Grid(
                ["members", *map(str, dict.fromkeys(shown))],
                [["accuracy", *(f"{sizes[size]['mean']:.3f}" for size in dict.fromkeys(shown))]],
            )
        )
        figure = plots.size_plot(panel)
        words = f"From {sizes[1]['mean']:.3f} for one member to {sizes[max(sizes)]['mean']:.3f} for all."
        blocks.append(
            Plot(f"committee-size{panel.spec.name and '-' + panel.spec.name}", figure, words, words)
        )
        twins = ", ".join(f"{name} {value:.3f}" for name, value in committee["twins"].items())
        blocks.append(
            Text(
                f"Committees of trials of one architecture: {twins}; of {len(committee['names'])} different"
                f" architectures, mean of the trials: {np.mean(committee['trials']):.3f}."
            )
        )
        if "subsets" in committee:
            blocks.append(_subsets(committee, panel.with_role("member")))
        else:
            blocks.append(Text("No subset was chosen, as no validation texts were left."))
    return blocks or [Text("Not run.")]


def _subsets(committee: dict[str, Any], members: Sequence[RowResult]) -> Block:
    subsets, names = committee["subsets"], committee["names"]
    chosen = ", ".join(names[i] for i in subsets["chosen"])
    differences = np.subtract(subsets["chosen_test"], subsets["all_members_test"])
    by_trial = dict(zip(committee["numbers"], differences.tolist(), strict=True))
    found = interval(independent(by_trial, *members))
    better = "shown" if found is not None and found.low > 0 else "not shown"
    return Points(
        [
            f"Best on {subsets['validation_texts']} validation texts (mean of the trials): {chosen}.",
            f"Its test accuracy is {np.mean(subsets['chosen_test']):.3f}, that of all {len(names)} members"
            f" {np.mean(subsets['all_members_test']):.3f}; difference {interval_words(found)}:"
            f" that choosing helps is {better}.",
            f"Chosen again in each trial, the subset has {np.mean(subsets['chosen_by_trial_test']):.3f}.",
        ]
    )
