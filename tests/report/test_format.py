"""How figures and names are written."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tinylm.report import format as form
from tinylm.report.page import as_html
from tinylm.report.tables import confusion_table

LONG = [f"customer service / {part}" for part in ("billing", "delivery", "returns", "technical")]


def test_figures() -> None:
    assert [form.number(value) for value in (0.8874, 1, None)] == ["0.887", "1.000", ""]
    assert [form.signed(value) for value in (0.01, -0.0104, None)] == ["+0.010", "\u22120.010", ""]
    assert form.signed(-0.0104, 2) == "\u22120.01"
    assert form.mean_deviation([0.5, 0.7]) == "0.600 ± 0.141"
    assert form.mean_deviation([0.5]) == "0.500" and form.mean_deviation([]) == ""
    assert form.signed_mean_deviation([-0.5, -0.7]) == "\u22120.600 ± 0.141"
    assert form.range_words((0.1, 0.25)) == "0.100 to 0.250"
    assert form.duration(287.9) == "4 min 47 s"
    assert (form.count(12_345), form.percent(0.834), form.two_digits(0.126)) == ("12,345", "83 %", "0.13")
    assert form.cut("two\n words", 9) == "two words" and form.cut("many words", 6) == "many …"


def test_names_are_cut_in_the_middle_where_they_begin_alike() -> None:
    rows, columns = form.row_and_column_names(LONG, 40, 13)
    assert rows == LONG
    assert columns == ["cust… billing", "cust…delivery", "cust… returns", "cust…echnical"]


def test_columns_that_would_look_the_same_are_numbered() -> None:
    alike = ["complaint about the bill, new", "complaint about the mill, new"]
    rows, columns = form.row_and_column_names(alike, 12, 10)
    assert columns == ["1", "2"]
    assert [row[:2] for row in rows] == ["1 ", "2 "]
    # Where there is no room for a name at all, too.
    assert form.row_and_column_names(LONG, 40, -2)[1] == ["1", "2", "3", "4"]
    assert form.row_and_column_names(["a", "b"], 40, 1) == (["a", "b"], ["a", "b"])


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=8, unique=True), st.integers(-3, 30))
def test_rows_and_columns_always_differ_and_fit(names: list[str], width: int) -> None:
    rows, columns = form.row_and_column_names(names, max(width, 12), width)
    assert len(set(columns)) == len(set(rows)) == len(names)
    assert all(len(column) <= max(width, 1) for column in columns)


@pytest.mark.parametrize(
    ("width", "heads"), [(200, LONG), (110, ["…/ billing", "… delivery", "…/ returns"]), (60, list("1234"))]
)
def test_the_confusion_table_can_be_read_at_any_width(width: int, heads: list[str]) -> None:
    console = Console(width=width, file=io.StringIO())
    console.print(confusion_table(np.arange(16).reshape(4, 4), LONG, width))
    out = console.file.getvalue()  # type: ignore[attr-defined]
    lines = out.splitlines()
    assert max(map(len, lines)) <= width and "…\u2502" not in out
    head = next(line for line in lines if "\u2503" in line)
    assert all(name in head for name in heads)
    for name in LONG:  # in full in front of its row
        assert any(name in line for line in lines[3:])
    assert "15" in lines[-2]


def test_many_labels_show_the_most_frequent_confusions() -> None:
    confusion = np.diag(np.full(20, 9))
    confusion[3, 7], confusion[5, 1] = 8, 2
    console = Console(width=80, file=io.StringIO())
    console.print(confusion_table(confusion, [f"label {i}" for i in range(20)], 80))
    rows = [
        line.replace("\u2502", " ").split()
        for line in console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    ]
    assert rows[4:6] == [["label", "3", "label", "7", "8"], ["label", "5", "label", "1", "2"]]


def test_marks_of_markdown_become_elements_and_everything_else_stays_text() -> None:
    assert as_html("`a <b>` and **c**") == "<code>a &lt;b&gt;</code> and <strong>c</strong>"
