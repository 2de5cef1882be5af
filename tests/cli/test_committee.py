"""`tinylm committee`, through the real entry point."""

from __future__ import annotations

from pathlib import Path

from helpers.command import (
    NOUNS,
    done,
    record_of,
)


def test_committee_of_different_members(home: Path, tmp_path: Path) -> None:
    done(
        "pretrain --corpus corpus.txt --tokenizer pretrained --layers 2 --heads 1 --size 32 --epochs 1 --out",
        tmp_path / "p",
    )
    done(f"finetune {tmp_path / 'p'} --task task.csv --recipe fast --epochs 2 --out", tmp_path / "second")
    done("committee classifier", tmp_path / "second", "--out", tmp_path / "both")
    record = record_of(tmp_path / "both")
    assert [member["model"]["layers"] for member in record["members"]] == [1, 2]
    out = done(f"evaluate {tmp_path / 'both'} --task task.csv").out
    assert all(name in out for name in ("member 1", "member 2", "committee"))
    label, probability, text = (
        done(f"predict {tmp_path / 'both'}", "the cow needs the hay").out.strip().split("\t")
    )
    assert label in NOUNS and 0.5 <= float(probability) <= 1 and text == "the cow needs the hay"
