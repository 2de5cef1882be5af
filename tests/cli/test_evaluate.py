"""`tinylm evaluate`, through the real entry point."""

from __future__ import annotations

import csv
from pathlib import Path

from sklearn.metrics import accuracy_score, f1_score

from helpers.command import (
    done,
    record_of,
    write_table,
)
from tinylm.infer.committee import load_committee


def test_evaluate_agrees_with_the_record_and_warns_of_another_split(home: Path, tmp_path: Path) -> None:
    outcome = done("evaluate classifier --task task.csv")
    row = next(line for line in outcome.out.splitlines() if line.startswith("│ classifier"))
    assert f"{record_of(home / 'classifier')['accuracy']:.3f}" in row
    assert "linear SVM" in outcome.out
    assert outcome.err == ""
    other = done("evaluate classifier --task task.csv --test-per-label 20")
    assert "another split" in other.err


def test_a_table_and_a_task_are_evaluated_by_one_program(home: Path, tmp_path: Path) -> None:
    """The same texts give the same figures, as scikit-learn has them."""
    with (home / "task.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    texts = [f"{row['text']} again" for row in table]  # no copies of training texts
    predicted = load_committee(home / "classifier").predict(texts)
    other = {"farm": "sea", "sea": "farm"}
    truth = [other[row["label"]] if i < 9 else row["label"] for i, row in enumerate(table)]  # some mistakes
    path = tmp_path / "test.csv"
    write_table(path, list(zip(texts, truth, strict=True)))
    accuracy = f"{accuracy_score(truth, predicted):.3f}"
    macro_f1 = f"{f1_score(truth, predicted, average='macro'):.3f}"
    for command in (f"{path}", f"--task task.csv --test {path}"):
        out = done(f"evaluate classifier {command}").out
        row = next(line for line in out.splitlines() if line.startswith("│ classifier"))
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert (cells[1], cells[3]) == (accuracy, macro_f1)
        low, high = map(float, cells[2].split(" to "))
        assert low < float(accuracy) < high
        assert "calibration error: " in out and "instead of" in out
        assert ("linear SVM" in out) == ("--task" in command)
