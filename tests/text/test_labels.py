"""What cells of labels are taken for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tinylm.errors import UserError
from tinylm.text.labelled import read_labelled, targets_of
from tinylm.text.labels import by_name, read_labels

AWKWARD = [
    "NA",
    "None",
    "null",
    "nan",
    "007",
    "7",
    "$",
    "yes, please",
    "C++/C#",
    "a; b",
    "[red]x[/red]",
    "1.0",
]


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (AWKWARD, AWKWARD[:-1] + ["1"]),  # names stay as they are; a number is a number
        (["1.0", "2.0", "nan", "10"], [1, 2, None, 10]),
        ([1.0, 2.0, 10], [1, 2, 10]),
        (["1.0", "1.5", "2.0"], ["1.0", "1.5", "2.0"]),  # grades or versions
        (["007", "7"], ["007", "7"]),
        ([True, False], ["True", "False"]),
        (["['a', 'b']", "[]", "['b']"], [["a", "b"], [], ["b"]]),
        (['["a", "b"]', '["b"]'], [["a", "b"], ["b"]]),
        (["['a' 'b']", "['b']"], [["a", "b"], ["b"]]),  # numpy's way
        (["{a,b}", '{"c d",b}'], [["a", "b"], ["c d", "b"]]),  # a database's way
        (["[0, 2]", "[1]"], [[0, 2], [1]]),
        (["(a)", "[b]"], ["(a)", "[b]"]),  # names in brackets
        ([["a"], ["a", "b"]], [["a"], ["a", "b"]]),
        ([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]], [[1, 2], []]),  # a mark for each label
        (["[1, 0]", "[0, 1]"], [[0], [1]]),
        ([[0, 1], [1]], [[0, 1], [1]]),
    ],
)
def test_cells(cells: list[Any], labels: list[Any]) -> None:
    assert read_labels(cells)[0] == labels


def test_separated_cells_and_the_hint_at_them() -> None:
    cells = ["tea;cake", "tea", "cake; tea"]
    assert read_labels(cells, ";")[0] == [["tea", "cake"], ["tea"], ["cake", "tea"]]
    (hint,) = read_labels(cells)[1]
    assert "'cake; tea'" in hint and "';'" in hint
    assert read_labels(["salt / pepper", "salt / oil", "tea"])[1] == []  # pepper is no label


def test_truth_is_the_same_however_it_is_written() -> None:
    for names in (["False", "True"], ["false", "true"], ["FALSE", "TRUE"]):
        find = by_name(names)
        assert [find(name) for name in ("true", "True", "TRUE", "false", "no")] == [1, 1, 1, 0, None]
    assert by_name(["true", "false", "unknown"])("True") is None


def test_names_that_differ_in_capitals_are_told() -> None:
    labels, (note,) = read_labels(["tea", "Tea", "cake"])
    assert labels == ["tea", "Tea", "cake"] and "'Tea' and 'tea'" in note


def write(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_columns_of_zero_and_one(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "text,rude,late\na,1,0\nb,0,No\nc,1.0,True\nd,,1\ne,NaN,1\n")
    found = read_labelled(table, "text", ["rude", "late"])
    assert found.labels == [["rude"], [], ["rude", "late"]] and found.unusable == {"no label": 2}
    with pytest.raises(UserError, match=r"a.csv, row 2, column 'late' is '2'; expected 0 or 1"):
        read_labelled(write(tmp_path / "a.csv", "text,rude,late\na,1,0\nb,0,2\n"), "text", ["rude", "late"])


def test_numbers_of_two_tables_are_the_same_labels(tmp_path: Path) -> None:
    train = read_labelled(write(tmp_path / "a.csv", "text,label\na,1.0\nb,2.0\nc,\n"), "text", "label")
    test = read_labelled(write(tmp_path / "b.csv", "text,label\na,2\nb,1\n"), "text", "label")
    assert targets_of(test, train.names).tolist() == [1, 0]
    halves = read_labelled(write(tmp_path / "c.csv", "text,label\na,1.0\nb,1.5\n"), "text", "label")
    assert (
        targets_of(
            read_labelled(write(tmp_path / "d.csv", "text,label\na,1\n"), "text", "label"), halves.names
        )
        == 0
    )
    with pytest.raises(UserError, match=r"b.csv has the label '2'; expected one of 1.0, 1.5"):
        targets_of(test, halves.names)


def test_a_missing_label_is_none_whatever_writes_it(tmp_path: Path) -> None:
    table = write(
        tmp_path / "a.jsonl",
        '{"text": "a", "label": NaN}\n{"text": "b", "label": null}\n'
        '{"text": "c", "label": " "}\n{"text": "d", "label": [null]}\n{"text": "e", "label": "x"}\n',
    )
    found = read_labelled(table, "text", "label")
    assert (found.labels, found.unusable) == (["x"], {"no label": 4})
    assert read_labels([1.0, 2.0])[0] == [1, 2] and math.isnan(float("nan"))
