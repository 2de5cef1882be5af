"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from tinylm.report.format import count, row_and_column_names
from tinylm.text.coverage import Coverage

MATRIX_LABELS = 12  # of a confusion matrix that is printed whole
ROW_NAME = 40  # characters of a label in front of its row


def figures_table(title: str, first: str, columns: Sequence[str]) -> Table:
    """An empty table with names on the left and figures, set to the right, in the other columns."""
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def coverage_table(found: Coverage) -> Table:
    """W_S, T_W, T_C, T_M and how far the pre-training text covers the task's tokens."""
    table = Table(title="Tokens of W_S and of the classification data")
    for column in ("W_S", "T_W", "T_C", "T_M", "of T_W not in T_C", "frequency-weighted overlap"):
        table.add_column(column, justify="right")
    counts = (found.paragraphs, found.t_w, found.t_c, found.t_m, found.absent_from_task)
    table.add_row(*map(count, counts), f"{found.weighted_overlap:.4f}")
    return table


def confusion_table(confusion: np.ndarray, names: Sequence[str], width: int) -> Table:
    """The whole matrix where it has few labels, otherwise the most frequent confusions.

    Args:
        confusion: `int64 [truth, prediction]`.
        names: of the labels.
        width: of the terminal, in characters.
    """
    if len(names) > MATRIX_LABELS:
        return _most_frequent_confusions(confusion, names)
    longest = min(max(map(len, names)), ROW_NAME) + 3  # a number may stand in front
    # A border and a blank on each side of a column.
    rows, columns = row_and_column_names(names, ROW_NAME, (width - longest - 4) // len(names) - 3)
    title = "Predictions (columns) by label (rows)"
    table = Table("", title=title)
    for column in columns:
        table.add_column(escape(column), justify="right", no_wrap=True)
    for row, counts in zip(rows, confusion.tolist(), strict=True):
        table.add_row(escape(row), *(count(number) if number else "" for number in counts))
    return table


def _most_frequent_confusions(confusion: np.ndarray, names: Sequence[str]) -> Table:
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    table = Table("label", "prediction", title="Most frequent confusions")
    table.add_column("texts", justify="right")
    for place in (-wrong).ravel().argsort(kind="stable")[:MATRIX_LABELS].tolist():
        row, column = divmod(place, len(names))
        if wrong[row, column]:
            table.add_row(escape(names[row]), escape(names[column]), count(int(wrong[row, column])))
    return table
