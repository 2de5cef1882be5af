"""`tinylm corpus`, through the real entry point."""

from __future__ import annotations

import importlib.metadata
import random
from pathlib import Path

from helpers.command import (
    done,
    record_of,
    sentence,
    tokens_of_task,
    write_table,
)
from tinylm.system.files import hash_files
from tinylm.text.prepare import prepare
from tinylm.text.store import open_store
from tinylm.text.tasks import load_task
from tinylm.text.tokenizer import load_tokenizer


def test_corpus_random_is_a_part_of_the_corpus(home: Path, tmp_path: Path) -> None:
    done("corpus --corpus corpus.txt --vocabulary 300 --size 50 --out", tmp_path / "store")
    paragraphs, meta = open_store(tmp_path / "store")
    whole = {tuple(row) for row in prepare("corpus.txt", vocabulary=300).paragraphs}
    assert len(paragraphs) == 50
    assert {tuple(row) for row in paragraphs} <= whole
    record = record_of(tmp_path / "store")
    assert (record["kind"], record["seed"], record["w_s"]) == ("corpus", 42, 50)
    assert record["corpus"]["fingerprint"] == meta["fingerprint"] == hash_files([home / "corpus.txt"])
    assert record["settings"]["size"] == 50
    assert record["versions"]["tokenizers"] == importlib.metadata.version("tokenizers")


def test_corpus_custom_made_with_a_reduced_vocabulary(home: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "farm.csv", [(sentence("farm", random.Random(i)), "ab"[i % 2]) for i in range(40)])
    select = "corpus --corpus corpus.txt --vocabulary 300 --select custom-made --task"
    done(select, tmp_path / "farm.csv", "--out", tmp_path / "all")
    outcome = done(select, tmp_path / "farm.csv", "--reduce-vocabulary", "--out", tmp_path / "few")
    full, few = load_tokenizer(tmp_path / "all"), load_tokenizer(tmp_path / "few")
    in_task = tokens_of_task(tmp_path / "all", tmp_path / "farm.csv")
    paragraphs, _ = open_store(tmp_path / "all")
    reduced, _ = open_store(tmp_path / "few")
    # By brute force: exactly the lines that consist of the task's tokens.
    whole = prepare("corpus.txt", vocabulary=300).paragraphs
    expected = sorted(tuple(row) for row in whole if set(row.tolist()) <= in_task)
    assert sorted(tuple(row) for row in paragraphs) == expected
    assert f"W_S = {len(expected):,} " in outcome.out
    assert {full.vocab[i] for i in in_task} == set(few.vocab) - {"[PAD]", "[UNK]", "[MASK]"}
    words = [[full.vocab[i] for i in row] for row in paragraphs]
    assert [[few.vocab[i] for i in row] for row in reduced] == words
    assert record_of(tmp_path / "few")["task"]["fingerprint"] == load_task(tmp_path / "farm.csv").fingerprint


def test_corpus_mismatched_misses_the_wanted_tokens_and_a_store_is_a_corpus(
    home: Path, tmp_path: Path
) -> None:
    done("corpus --corpus corpus.txt --vocabulary 300 --size 350 --out", tmp_path / "store")
    store = tmp_path / "store"
    select = f"corpus --corpus {store} --select mismatched --task task.csv --size 30 --missing 10 --out"
    done(select, tmp_path / "mismatched")
    paragraphs, meta = open_store(tmp_path / "mismatched")
    in_task = tokens_of_task(store, home / "task.csv")
    assert len(paragraphs) == 30
    assert abs(len(in_task - set(paragraphs.ids.tolist())) - 10) <= 1
    assert {tuple(row) for row in paragraphs} <= {tuple(row) for row in open_store(store)[0]}
    assert meta["fingerprint"] == hash_files([home / "corpus.txt"])
    done(f"pretrain --layers 1 --heads 1 --epochs 1 --corpus {tmp_path / 'mismatched'} --out", tmp_path / "m")
    assert record_of(tmp_path / "m")["corpus"]["selection"]["settings"]["missing"] == 10
    assert (tmp_path / "m" / "vocab.txt").read_bytes() == (store / "vocab.txt").read_bytes()


def test_no_test_article_of_vital_topics_is_in_w_s(vital: None, home: Path, tmp_path: Path) -> None:
    outcome = done("corpus --corpus vital --vocabulary 300 --max-tokens 64 --out", tmp_path / "store")
    paragraphs, meta = open_store(tmp_path / "store")
    tokenizer = load_tokenizer(tmp_path / "store")
    task = load_task("vital-topics")
    tested = {tuple(row) for row in tokenizer.encode(task.test_texts, 64)}
    assert not tested & {tuple(row) for row in paragraphs}
    trained = {tuple(row) for row in tokenizer.encode(task.train_texts, 64)}
    assert trained <= {tuple(row) for row in paragraphs}
    assert f"{meta['excluded']:,} held out for testing" in outcome.err
    done(
        f"pretrain --corpus {tmp_path / 'store'} --size 32 --layers 1 --heads 1 --epochs 1 --out",
        tmp_path / "m",
    )
    tune = "--task vital-topics --labels 0,1 --train-per-label 4 --epochs 1 --out"
    for model, more, warned in (
        (tmp_path / "m", "--test-per-label 100", False),
        (tmp_path / "m", "--test-per-label 101", True),  # one more than was held out
        (home / "pretrained", "--test-per-label 4", True),  # on another corpus, which may hold them
        (home / "pretrained", "--test-per-label 4 --from-scratch", False),
    ):
        out = tmp_path / f"c{len(list(tmp_path.iterdir()))}"
        assert ("may have seen test articles" in done(f"finetune {model} {more} {tune}", out).err) == warned
