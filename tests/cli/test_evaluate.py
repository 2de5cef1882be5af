"""`tinylm evaluate`, through the real entry point."""

from __future__ import annotations

from pathlib import Path

from helpers.command import (
    done,
    record_of,
)


def test_evaluate_agrees_with_the_record_and_warns_of_another_split(home: Path, tmp_path: Path) -> None:
    answer = done("evaluate classifier --task task.csv")
    row = next(line for line in answer.out.splitlines() if line.startswith("│ classifier"))
    assert f"{record_of(home / 'classifier')['accuracy']:.3f}" in row
    assert "linear SVM, words and characters" in answer.out
    assert answer.err == ""
    other = done("evaluate classifier --task task.csv --test-per-label 20")
    assert "another split" in other.err
