"""`tinylm coverage`, through the real entry point."""

from __future__ import annotations

from pathlib import Path

from helpers.command import (
    done,
    tokens_of_task,
)
from tinylm.text.store import open_store


def test_coverage_counts_as_sets_do(home: Path, tmp_path: Path) -> None:
    done("corpus --corpus corpus.txt --vocabulary 300 --size 20 --out", tmp_path / "store")
    out = done("coverage --task task.csv", tmp_path / "store").out
    in_task = tokens_of_task(tmp_path / "store", home / "task.csv")
    in_w_s = set(open_store(tmp_path / "store")[0].ids.tolist())
    row = next(line for line in out.splitlines() if line.startswith("│"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    expected = [20, len(in_w_s), len(in_task), len(in_task - in_w_s), len(in_w_s - in_task)]
    assert [int(cell) for cell in cells[:5]] == expected
    assert expected[3] > 0
