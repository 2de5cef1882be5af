"""The claims of the paper's abstract, each held against the stored trials.

A claim about one task is shown where the 95 % interval of its paired trials supports it, and
"not shown" otherwise; a claim of the paper is ticked only where every task that was run shows
it. Nothing here supposes how the results fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tinylm.paper.statistics import interval, slopes
from tinylm.paper.view import PanelResult, RowResult, TableResult, gaps_of, paired
from tinylm.report.format import Interval

# A committee reaches the deep model when it is at most so far below: the paper's own standard
# deviation, "around 1%".
MARGIN = 0.01
Verdict = Literal["shown", "not shown", "not run"]


@dataclass(frozen=True)
class Evidence:
    """One comparison.

    Attributes:
        what: in words.
        found: its mean and interval.
        shown: whether the interval supports the claim.
    """

    what: str
    found: Interval
    shown: bool


@dataclass(frozen=True)
class Claim:
    """A claim and the comparisons that bear on it."""

    text: str
    rule: str
    evidence: list[Evidence]

    @property
    def verdict(self) -> Verdict:
        """Whether all comparisons support it."""
        if not self.evidence:
            return "not run"
        return "shown" if all(one.shown for one in self.evidence) else "not shown"


def claims(tables: Sequence[TableResult]) -> list[Claim]:
    """All claims, in the order of the abstract."""
    panels = [panel for table in tables for panel in table.panels]
    return [_gap(panels), _growth(panels), _mismatch(panels), _committee(panels), _untrained(panels)]


def random_rows_of(panel: PanelResult) -> list[RowResult]:
    """Rows with random W_S (all of the corpus included) and a gap, smallest W_S first."""
    rows = [
        row
        for row in panel.rows
        if row.spec.w_s.select in ("random", "all") and len(row.gaps) > 1 and row.spec.role == "row"
    ]
    return sorted(rows, key=lambda row: row.w_s)


def _gap(panels: Sequence[PanelResult]) -> Claim:
    evidence = []
    for panel in panels:
        if panel.spec.without is None or "t_m" in panel.spec.plots or "reverse" in panel.spec.plots:
            continue
        for row in panel.rows:
            found = interval(row.gaps) if row.coverage else None
            if found is not None:
                evidence.append(
                    Evidence(f"{panel.name}, W_S = {row.w_s:,} ({row.spec.w_s.select})", found, found.low > 0)
                )
    return Claim(
        "Pre-trained models are more accurate than models without pre-training (gap > 0)",
        "the interval of the gap lies above 0, for every W_S of every task",
        evidence,
    )


def _growth(panels: Sequence[PanelResult]) -> Claim:
    evidence = []
    for panel in panels:
        rows = random_rows_of(panel)
        if "gap" not in panel.spec.plots or len(rows) < 2:
            continue
        found = interval(slopes([row.w_s for row in rows], gaps_of(rows)))
        if found is not None:
            evidence.append(
                Evidence(
                    f"{panel.name}: growth of the gap for ten times W_S,"
                    f" from {rows[0].w_s:,} to {rows[-1].w_s:,}",
                    found,
                    found.low > 0,
                )
            )
    return Claim(
        "The gap grows with the size of the pre-training dataset",
        "the slope of the gap over log W_S, computed in each trial, has an interval above 0",
        evidence,
    )


def _mismatch(panels: Sequence[PanelResult]) -> Claim:
    evidence = []
    for panel in panels:
        for row in panel.rows:
            if row.spec.w_s.select != "mismatched":
                continue
            same = next(
                (o for o in panel.rows if o.spec.w_s.select == "random" and o.w_s == row.w_s and o.coverage),
                None,
            )
            if same is None:
                continue
            found = interval(paired(same.by_trial, row.by_trial))
            if found is not None:
                evidence.append(
                    Evidence(
                        f"{panel.name}, W_S = {row.w_s:,}: accuracy at T_M {same.coverage['t_m']:,} minus"
                        f" accuracy at T_M {row.coverage['t_m']:,}",
                        found,
                        found.low > 0,
                    )
                )
    return Claim(
        "At equal W_S, accuracy falls as more of the task's tokens are missing (larger T_M)",
        "the interval of the paired difference lies above 0",
        evidence,
    )


def _committee(panels: Sequence[PanelResult]) -> Claim:
    return Claim(
        "A soft committee of shallow pre-trained models reaches the accuracy of the deep one",
        f"the interval of committee minus deep model lies above -{MARGIN}, the paper's standard deviation",
        [one for panel in panels if panel.table == "table8" and (one := _against_deep(panel)) is not None],
    )


def _untrained(panels: Sequence[PanelResult]) -> Claim:
    return Claim(
        "On AG News, a committee of shallow models without any pre-training reaches the deep model that"
        " was pre-trained on a small W_S",
        f"as above, above -{MARGIN}",
        [one for panel in panels if panel.table == "table9" and (one := _against_deep(panel)) is not None],
    )


def _against_deep(panel: PanelResult) -> Evidence | None:
    deep = panel.with_role("deep")
    if panel.committee is None or not deep:
        return None
    committee = dict(zip(panel.committee["numbers"], panel.committee["trials"], strict=True))
    found = interval(paired(committee, deep[0].by_trial))
    if found is None:
        return None
    return Evidence(f"{panel.name}: committee minus {deep[0].architecture}", found, found.low > -MARGIN)
