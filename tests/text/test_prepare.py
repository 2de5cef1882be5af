"""A corpus is tokenized once, whoever asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinylm.text import prepare as module
from tinylm.text.prepare import prepare, save_selection, spread
from tinylm.text.store import open_store

FIRST_RUN = """
import os, sys
from tinylm.text import prepare as module

build = module.build_store
def counted(*arguments, **settings):
    with open("built", "a") as file:
        file.write("once ")
    build(*arguments, **settings)
module.build_store = counted

print("ready", flush=True)
sys.stdin.readline()
found = module.prepare("corpus.txt", vocabulary=300)
print(len(found.paragraphs), int(found.paragraphs.ids.astype("int64").sum()), found.tokenizer.fingerprint)
"""


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"the {number} geese fly north again\n" for number in range(3000)))
    return path


def test_two_first_runs_at_once_share_one_complete_store(corpus: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST_RUN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for run in runs:
        assert run.stdout is not None and run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    first, second = (run.communicate()[0].split() for run in runs)
    assert first == second
    assert first[0] == "3000"
    assert Path("built").read_text() == "once "
    (store,) = Path("cache", "stores").iterdir()
    assert sorted(path.name for path in store.iterdir()) == [
        "ids.bin",
        "offsets.bin",
        "store.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]


def test_a_read_only_cache_that_has_the_store_is_enough(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare("corpus.txt", vocabulary=300)
    monkeypatch.setattr("tinylm.text.prepare.cache_folder", lambda: pytest.fail("the cache was written to"))
    assert prepare("corpus.txt", vocabulary=300).tokenizer.vocab == made.tokenizer.vocab


def test_of_a_large_corpus_every_second_or_fourth_text_trains_the_vocabulary() -> None:
    texts = [f"{number:02d}" for number in range(23)]  # 46 characters
    assert spread(iter(texts), 46) == texts
    assert spread(iter(texts), 45) == texts[::2]
    assert spread(iter(texts), 23) == texts[::4]
    assert spread(iter(["one long text"]), 1) == ["one long text"]


@pytest.mark.parametrize("reduced", [False, True])
def test_a_selection_is_written_piece_by_piece(corpus: Path, reduced: bool, monkeypatch) -> None:
    source = prepare("corpus.txt", vocabulary=300)
    rows = np.random.default_rng(0).permutation(3000)[:25]
    keep = np.zeros(len(source.tokenizer), bool) if reduced else None
    monkeypatch.setattr(module, "PIECE", 7)
    save_selection(source, rows, Path("pieces"), {}, keep)
    found, meta = open_store(Path("pieces"))
    vocabulary = Path("pieces/vocab.txt").read_text(encoding="utf-8").split("\n")
    texts = [[vocabulary[token] for token in found[row].tolist()] for row in range(len(found))]
    whole = [[source.tokenizer.vocab[token] for token in source.paragraphs[row].tolist()] for row in rows]
    assert texts == whole and meta["paragraphs"] == 25
    assert (len(vocabulary) < len(source.tokenizer)) == reduced
