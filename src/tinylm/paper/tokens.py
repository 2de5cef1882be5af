"""Numbers that must agree with the paper's and need no training: T_W, T_C and T_M.

They are counted when tables are planned, so the report can show them before any model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinylm.paper.view import PanelResult, RowResult, TableResult
from tinylm.report.document import Block, Grid, Section, Text
from tinylm.report.format import MINUS, count

WIKIPEDIA = 6_000_000  # paragraphs, as the paper rounds them
VOCABULARY = 30_522  # tokens of bert-base-uncased, which the paper's counts belong to


def token_section(tables: Sequence[TableResult]) -> Section | None:
    """The paper's counts beside ours; None where the vocabulary is another or nothing was counted."""
    corpus = next((table.corpus for table in tables if table.corpus), None)
    if corpus is None or corpus["vocabulary"] != VOCABULARY:
        return None
    panels = [panel for table in tables for panel in table.panels]
    blocks: list[Block] = [
        Text(
            f"Counted by `tinylm paper plan all --preset {tables[0].preset} --store`, without any training."
            f" All of Wikipedia is {corpus['paragraphs']:,} paragraphs here, of {corpus['mean_tokens']}"
            " tokens on average and from several snapshots; the paper has 6 million articles, cut to 128"
            " tokens."
        ),
        _random(panels),
        _tasks(panels),
        _missing(panels, corpus["paragraphs"]),
        *_custom_made(panels, corpus),
    ]
    return Section("Tokens: the paper's counts beside ours", blocks=blocks)


def _random(panels: Sequence[PanelResult]) -> Grid:
    """T_W of each random W_S, which does not depend on the task."""
    found: dict[int, RowResult] = {}
    for panel in panels:
        for row in panel.rows:
            known = row.spec.w_s.select in ("random", "all") and row.coverage
            if known and row.paper.t_w is not None:
                found.setdefault(row.w_s, row)
    rows = [
        [count(row.paper.w_s), f"{w_s:,}", count(row.paper.t_w), f"{row.coverage['t_w']:,}",
         _difference(row.paper.t_w, row.coverage["t_w"])]
        for w_s, row in sorted(found.items(), reverse=True)
    ]  # fmt: skip
    return Grid(
        ["W_S paper", "W_S", "T_W paper", "T_W", "difference"],
        rows,
        "Random W_S, chosen by the same shuffle: what differs is the text.",
    )


def _tasks(panels: Sequence[PanelResult]) -> Grid:
    """T_C of each task."""
    rows: dict[int, list[str]] = {}
    for panel in panels:
        if panel.spec.t_c is not None:
            task, spec = panel.task, panel.spec.task
            wanted = len(task["labels"]) * (spec.train_per_label + spec.test_per_label)
            texts = task["train_texts"] + task["validation_texts"] + task["test_texts"]
            rows.setdefault(
                panel.spec.t_c,
                [panel.name, task["name"], f"{wanted:,}", f"{texts:,}", count(panel.spec.t_c),
                 f"{task['t_c']:,}", _difference(panel.spec.t_c, task["t_c"])],
            )  # fmt: skip
    return Grid(
        ["panel", "task", "texts paper", "texts", "T_C paper", "T_C", "difference"],
        list(rows.values()),
        "Where texts are missing, the local files are not complete; otherwise, other texts of the"
        " same data set were drawn.",
    )


def _missing(panels: Sequence[PanelResult], paragraphs: int) -> Grid:
    """T_M of each row."""
    rows = []
    for panel in panels:
        for row in panel.rows:
            if row.coverage and row.paper.t_m is not None:
                rows.append(
                    [panel.name, row.spec.name, row.spec.w_s.select, count(row.paper.w_s), f"{row.w_s:,}",
                     count(row.paper.t_m), f"{row.coverage['t_m']:,}", _remark(row, paragraphs)]
                )  # fmt: skip
    return Grid(
        ["panel", "row", "selection", "W_S paper", "W_S", "T_M paper", "T_M", "why they differ"], rows
    )


def _custom_made(panels: Sequence[PanelResult], corpus: dict[str, Any]) -> list[Block]:
    """All counts of the custom-made selections, which have rows for themselves in Tables 1 and 2."""
    share = corpus["paragraphs"] / WIKIPEDIA
    found: dict[tuple[int, int], tuple[PanelResult, RowResult]] = {}
    for panel in panels:
        for row in panel.rows:
            if row.spec.w_s.select == "custom-made" and row.coverage and row.paper.w_s and panel.spec.t_c:
                found.setdefault((panel.spec.t_c, row.paper.w_s), (panel, row))
    grid = []
    for (t_c, w_s), (panel, row) in sorted(found.items()):
        t_m = row.paper.t_m
        of = row.w_s / (share * w_s)
        tokens = "" if row.mean_tokens is None else f"{row.mean_tokens:.0f}"
        reason = "as many as the size of the corpus lets expect" if 0.8 < of < 1.25 else (
            f"{of:.1f} times as many as the size of the corpus lets expect"
        )  # fmt: skip
        grid.append(
            [panel.name, f"{t_c:,}", f"{panel.task['t_c']:,}", f"{w_s:,}", f"{share * w_s:,.0f}",
             f"{row.w_s:,}", "" if t_m is None else f"{t_c - t_m:,}", f"{row.coverage['t_w']:,}",
             count(t_m), f"{row.coverage['t_m']:,}", tokens, reason]
        )  # fmt: skip
    if not grid:
        return []
    note = (
        "W_S expected: the paper's, scaled by the number of paragraphs. T_W paper: its T_C minus its T_M,"
        " since a custom-made W_S has no other tokens. A paragraph of the corpus has"
        f" {corpus['mean_tokens']} tokens on average; shorter ones qualify more easily. Fewer paragraphs hold"
        " fewer of the task's tokens, so T_M is larger here."
    )
    return [
        Grid(
            ["panel", "T_C paper", "T_C", "W_S paper", "W_S expected", "W_S", "T_W paper", "T_W", "T_M paper",
             "T_M", "tokens", "W_S beside the paper's"],
            grid,
            note,
        ),
        *_against_itself(found),
    ]  # fmt: skip


def _against_itself(found: Mapping[tuple[int, int], tuple[PanelResult, RowResult]]) -> list[Block]:
    """Where the printed W_S falls although more tokens are allowed."""
    printed = sorted(found)
    pairs = [(few, many) for few in printed for many in printed if few[0] < many[0] and few[1] > many[1]]
    if not pairs:
        return []
    (t_c, w_s), (larger, fewer) = max(pairs, key=lambda pair: pair[0][1] / pair[1][1])
    ours, other = (found[key][1].w_s for key in ((t_c, w_s), (larger, fewer)))
    return [
        Text(
            f"In print, {w_s:,} paragraphs qualify with a T_C of {t_c:,} ({found[t_c, w_s][0].name}) and only"
            f" {fewer:,} with the larger T_C of {larger:,} ({found[larger, fewer][0].name}). Here they are"
            f" {ours:,} and {other:,}; W_S rises with T_C. The printed W_S of these tables do not look as if"
            " they were chosen by the same rule, and no corpus of ours can agree with both."
        )
    ]


def _remark(row: RowResult, paragraphs: int) -> str:
    """Why T_M, or W_S, is another than the paper's."""
    found, select = row.paper, row.spec.w_s.select
    if found.t_m is not None and found.t_w is not None and found.t_m > VOCABULARY - found.t_w:
        return (
            f"the printed T_M cannot be right: with T_W {found.t_w:,}, only {VOCABULARY - found.t_w:,}"
            " tokens of the vocabulary are missing"
        )
    if select == "custom-made" and found.w_s:
        return f"{paragraphs / WIKIPEDIA:.1%} of the paper's corpus, see below"
    if select == "mismatched" and found.t_m and row.coverage["t_m"] < 0.95 * found.t_m:
        share, paper = row.w_s / paragraphs, (found.w_s or 0) / WIKIPEDIA
        return f"the largest in reach: {share:.1%} of all paragraphs must qualify, in the paper {paper:.1%}"
    if select == "all":
        return "rare tokens need more text"
    return ""


def _difference(paper: int | None, ours: int) -> str:
    return "" if not paper else f"{ours / paper - 1:+.1%}".replace("-", MINUS)
