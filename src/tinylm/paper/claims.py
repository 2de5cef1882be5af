"""The claims of the paper's abstract, each held against the stored trials.

A spec says which claims a panel is held against. One comparison supports a claim where its 95 % interval
does, in which trials that share a pre-training count as one, and the claim is ticked only where every
comparison that was run supports it. Nothing here supposes how the results fall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinylm.paper.spec import ClaimName
from tinylm.paper.statistics import difference, growth
from tinylm.paper.view import PanelResult, RowResult, TableResult, independent
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
        paper: the same figure from the paper's printed values; None where its text lacks one.
        mean: the figure.
        found: the same with its interval; None where a side has one trial alone.
        bound: the claim says that the figure lies above it.
        of: the first cells of the rows that are compared; a comparison that two tables share counts once.
    """

    what: str
    paper: float | None
    mean: float
    found: Interval | None
    bound: float
    of: tuple[str, ...]

    @property
    def shown(self) -> bool:
        """Whether the interval supports the claim."""
        return self.found is not None and self.found.low > self.bound

    @property
    def opposed(self) -> bool:
        """Whether the interval supports the opposite."""
        return self.found is not None and self.found.high < self.bound


@dataclass(frozen=True)
class Claim:
    """A claim and the comparisons that bear on it.

    Attributes:
        text: in the paper's sense.
        rule: what supports it.
        evidence: comparisons with an interval.
        alone: those without, of one trial; they decide nothing.
    """

    text: str
    rule: str
    evidence: list[Evidence]
    alone: list[Evidence]

    @property
    def verdict(self) -> Verdict:
        """Whether all comparisons support it."""
        if not self.evidence:
            return "not run"
        return "shown" if all(one.shown for one in self.evidence) else "not shown"

    @property
    def printed(self) -> list[float]:
        """The paper's figures, as far as it prints them, the smallest first; of `alone` if that is all."""
        return sorted(one.paper for one in self.evidence or self.alone if one.paper is not None)

    @property
    def found(self) -> list[Interval]:
        """Our figures, the smallest first."""
        found = [one.found for one in self.evidence if one.found is not None]
        return sorted(found, key=lambda each: each.mean)


def claims(tables: Sequence[TableResult]) -> list[Claim]:
    """All claims, in the order of the abstract."""
    panels = [panel for table in tables for panel in table.panels]
    out = []
    for name, (text, rule, comparisons) in CLAIMS.items():
        evidence: dict[tuple[str, ...], Evidence] = {}
        for panel in panels:
            if name in panel.spec.claims:
                for one in comparisons(panel):
                    evidence.setdefault(one.of, one)
        with_interval = [one for one in evidence.values() if one.found is not None]
        alone = [one for one in evidence.values() if one.found is None]
        out.append(Claim(text, rule, with_interval, alone))
    return out


def random_rows_of(panel: PanelResult) -> list[RowResult]:
    """Rows with random W_S (all of the corpus included) and a gap, smallest W_S first."""
    rows = [
        row
        for row in panel.rows
        if row.spec.w_s.select in ("random", "all") and row.gap is not None and row.spec.role == "row"
    ]
    return sorted(rows, key=lambda row: row.w_s)


def _gap(panel: PanelResult) -> Iterator[Evidence]:
    for row in panel.rows:
        if row.gap is not None:
            what = f"{panel.name}, W_S = {row.w_s:,} ({row.spec.w_s.select})"
            yield Evidence(what, row.paper.gap, row.gap, row.gap_interval, 0.0, (row.key,))


def _growth(panel: PanelResult) -> Iterator[Evidence]:
    rows = random_rows_of(panel)
    points = [(row.w_s, accuracy) for row in rows for accuracy in row.arm]
    # The model without pre-training is the same for every W_S, so the gap grows as the accuracy does.
    found = growth(*zip(*points, strict=True)) if len(rows) > 1 else None
    if found is not None:
        what = f"{panel.name}: growth of the gap for ten times W_S, from {rows[0].w_s:,} to {rows[-1].w_s:,}"
        of = tuple(row.key for row in rows)
        yield Evidence(what, _printed_growth(panel), found.mean, found, 0.0, of)


def _printed_growth(panel: PanelResult) -> float | None:
    """The same of the gaps that the paper prints, where it prints several."""
    printed = [(row.paper.w_s, row.paper.gap) for row in panel.rows if row.paper.w_s and row.paper.gap]
    found = growth(*zip(*printed, strict=True)) if printed else None
    return None if found is None else found.mean


def _overlap(panel: PanelResult) -> Iterator[Evidence]:
    for row in panel.rows:
        if row.spec.w_s.select != "mismatched":
            continue
        for other in panel.rows:
            like = other.spec.w_s
            control = like.select == "random" or like.lengths_of == "mismatched"
            if not control or other.w_s != row.w_s or not other.coverage:
                continue
            if other.arm and row.arm:
                what = (
                    f"{panel.name}, W_S = {row.w_s:,}: accuracy at T_M {other.coverage['t_m']:,}"
                    + (", paragraphs of the same lengths," if like.lengths_of else "")
                    + f" minus accuracy at T_M {row.coverage['t_m']:,}"
                )
                paper = _minus(other.paper.accuracy, row.paper.accuracy)
                of = (other.key, row.key)
                yield Evidence(what, paper, *_difference(other.arm, row.arm), 0.0, of)


def _committee(panel: PanelResult) -> Iterator[Evidence]:
    if panel.committee is None:
        return
    committee = dict(zip(panel.committee["numbers"], panel.committee["trials"], strict=True))
    members = panel.with_role("member")
    for deep in panel.with_role("deep"):
        if deep.arm:
            what = f"{panel.name}: committee minus {deep.spec.name} ({deep.architecture})"
            paper = _minus(panel.spec.committee, deep.paper.accuracy)
            found = _difference(independent(committee, *members), deep.arm)
            of = (*(member.key for member in members), deep.key)
            yield Evidence(what, paper, *found, -MARGIN, of)


def _difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, Interval | None]:
    """Of two means, and the same with its interval, where there is one."""
    return float(np.mean(first) - np.mean(second)), difference(first, second)


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


CLAIMS: dict[ClaimName, tuple[str, str, Callable[[PanelResult], Iterator[Evidence]]]] = {
    "gap": (
        "Pre-trained models are more accurate than models without pre-training (gap > 0)",
        "the interval of the gap lies above 0, for every W_S of every task",
        _gap,
    ),
    "growth": (
        "The gap grows with the size of the pre-training dataset",
        "the slope of the gap over log W_S, fitted to all pre-trainings, has an interval above 0",
        _growth,
    ),
    "overlap": (
        "At equal W_S, accuracy falls as more of the task's tokens are missing (larger T_M)",
        "the interval of the difference lies above 0",
        _overlap,
    ),
    "committee": (
        "A soft committee of shallow pre-trained models reaches the accuracy of the deep one",
        f"the interval of committee minus deep model lies above -{MARGIN}, the paper's standard deviation",
        _committee,
    ),
    "untrained-committee": (
        "On AG News, a committee of shallow models without any pre-training reaches the deep model that"
        " was pre-trained on a small W_S",
        f"as above, above -{MARGIN}",
        _committee,
    ),
}
