"""`tinylm predict`, through the real entry point."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np

from helpers.command import (
    NOUNS,
    TINY,
    done,
    sentence,
    write_table,
)


def test_predict_reads_and_writes_every_format_and_keeps_rows_apart(home: Path, tmp_path: Path) -> None:
    texts = ["the cow needs the hay", "", "the ship leaves the harbour"]
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    write_table(tmp_path / "in.csv", [(text, "x") for text in texts])
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (tmp_path / "in.jsonl").write_text("".join(lines), encoding="utf-8")
    single = [done("predict classifier", text).out.split("\t")[0] for text in (texts[0], texts[2])]
    assert single == ["farm", "sea"]
    for source in ("in.txt", "in.csv", "in.jsonl"):
        outcome = done("predict classifier", tmp_path / source)
        assert [line.split("\t")[0] for line in outcome.out.splitlines()] == ["farm", "", "sea"]
        assert outcome.err == "rows without a label: 1 empty text\n"
        for suffix in (".csv", ".jsonl"):
            out = tmp_path / f"{source}-out{suffix}"
            done("predict classifier", tmp_path / source, "--out", out)
            with out.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file) if suffix == ".csv" else map(json.loads, file))
            told = [
                (int(row["row"]), row["label"] or None, row["text"], row["reason"] or None) for row in rows
            ]
            assert told == [
                (1, "farm", texts[0], None),
                (2, None, "", "empty text"),
                (3, "sea", texts[2], None),
            ]
    assert not list(tmp_path.glob("*.partial"))


def test_predict_thousands_of_rows_in_their_order(home: Path, tmp_path: Path) -> None:
    chance = random.Random(3)
    topics = [chance.choice(sorted(NOUNS)) for _ in range(3000)]
    write_table(tmp_path / "in.csv", [(sentence(topic, chance), topic) for topic in topics])
    done("predict classifier", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(1, 3001))
    assert np.mean([row["label"] == topic for row, topic in zip(rows, topics, strict=True)]) > 0.8


def test_ten_megabytes_and_emoji_are_texts(home: Path, tmp_path: Path) -> None:
    long, emoji = "the cow needs the hay " * 500_000, "\N{GRINNING FACE}\N{ROCKET}" * 50
    for text in (long, emoji):
        assert done("predict classifier", text).out.split("\t")[0] in NOUNS
    (tmp_path / "in.txt").write_text(f"{long}\n{emoji}\n", encoding="utf-8")
    assert len(done("predict classifier", tmp_path / "in.txt").out.splitlines()) == 2
    model = TINY.replace("--vocabulary 300", "--tokenizer pretrained")
    done(f"pretrain --corpus {tmp_path / 'in.txt'} {model} --out", tmp_path / "pretrained")
    write_table(
        tmp_path / "task.csv",
        [(emoji * i, "farm") for i in range(1, 6)] + [(emoji[::-1] * i, "sea") for i in range(1, 6)],
    )
    done("finetune pretrained --epochs 1 --task", tmp_path / "task.csv", "--out", tmp_path / "classifier")
    outcome = done(f"evaluate {tmp_path / 'classifier'} --task", tmp_path / "task.csv")
    assert "no words" in outcome.err
