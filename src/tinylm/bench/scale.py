"""Suite `scale`: what a million paragraphs cost at every stage, and whether time and memory stay in line.

Made-up paragraphs, openings of `vital` with their sentences in another order, are written to a JSONL file and
go through the stages of a corpus. The reference is the same with a tenth of them: a ratio of 1 says that the
time for a million paragraphs, or tokens, does not depend on how many there are. The details have the memory
that a stage took beyond what the process had, in both. Pages of mapped files are not among it: they are the
kernel's cache, which it drops when memory runs short.
"""

from __future__ import annotations

import ctypes
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from tinylm.bench.measure import SECONDS, Machine, Measured, summarise
from tinylm.bench.texts import SENTENCE_END, openings
from tinylm.system.files import scratch_folder
from tinylm.text.corpus import build_store, open_corpus, read_vital
from tinylm.text.coverage import coverage
from tinylm.text.prepare import TokenizedCorpus, save_selection
from tinylm.text.select import mismatched_rows, random_rows
from tinylm.text.store import TokenIds, open_store
from tinylm.train.cooccurrence import token_vectors
from tinylm.train.pretrain import pretraining_run
from tinylm.train.recipes import RECIPES

PARAGRAPHS, SHARE = 2_000_000, 10  # and the part of them that the reference has
MILLION = 1_000_000
MAX_TOKENS = 128
T_C = 10_000  # tokens of the task that a selection follows: the first of the vocabulary
STEPS, WARM_UP = 200, 20  # of pre-training, and as many before that are not timed
RECIPE, SHAPE = "fast", {"layers": 1, "heads": 2}


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk.

    Attributes:
        texts: a JSONL file.
        store: the same as token ids.
        folder: where more can be written.
    """

    texts: Path
    store: Path
    folder: Path

    @property
    def tokenized(self) -> TokenizedCorpus:
        """The store, opened."""
        paragraphs, meta = open_store(self.store)
        return TokenizedCorpus(paragraphs, openings()[0].tokenizer, meta)


@lru_cache
def corpus_of(paragraphs: int) -> Corpus:
    """A corpus of so many paragraphs, that lasts as long as this process."""
    folder = scratch_folder()
    corpus = Corpus(folder / "corpus.jsonl", folder / "store", folder)
    articles = [SENTENCE_END.split(article["extract"].strip()) for article in read_vital().values()]
    articles = [sentences for sentences in articles if sentences[0]]
    random = np.random.default_rng(0)
    with corpus.texts.open("w", encoding="utf-8") as file:
        for number in range(paragraphs):
            sentences = articles[random.integers(len(articles))]
            text = " ".join(sentences[i] for i in random.permutation(len(sentences)))
            file.write(json.dumps({"title": str(number), "text": text}) + "\n")
    tokenize(corpus, corpus.store)
    return corpus


def tokenize(corpus: Corpus, store: Path) -> None:
    """Read the texts and write a token store."""
    build_store(open_corpus(str(corpus.texts)), openings()[0].tokenizer, store, max_tokens=MAX_TOKENS)


# --- The stages: each returns how many paragraphs or tokens it has gone through, and its seconds ---


def _timed(work: Callable[[], object], amount: int) -> tuple[int, float]:
    start = time.perf_counter()
    work()
    return amount, time.perf_counter() - start


def read(corpus: Corpus, paragraphs: int) -> tuple[int, float]:
    """Read all texts."""
    return _timed(lambda: sum(1 for _ in open_corpus(str(corpus.texts)).articles()), paragraphs)


def read_and_tokenize(corpus: Corpus, paragraphs: int) -> tuple[int, float]:
    """What `tinylm corpus` does first."""
    store = corpus.folder / f"store-{time.monotonic_ns()}"
    return _timed(lambda: tokenize(corpus, store), paragraphs)


def count(corpus: Corpus, paragraphs: int) -> tuple[int, float]:
    """Count T_W and T_M of the whole corpus as W_S."""
    source, task = corpus.tokenized, TokenIds.from_lists([range(T_C)])
    return _timed(lambda: coverage(source.paragraphs, task, len(source.tokenizer)), paragraphs)


def select(corpus: Corpus, paragraphs: int) -> tuple[int, float]:
    """A mismatched selection, the slowest, of a tenth of the corpus."""
    source = corpus.tokenized
    in_task = np.arange(len(source.tokenizer)) < T_C
    return _timed(lambda: mismatched_rows(source.paragraphs, in_task, paragraphs // 10), paragraphs)


def write(corpus: Corpus, paragraphs: int) -> tuple[int, float]:
    """Write all paragraphs in random order as a new store."""
    rows, out = random_rows(paragraphs, paragraphs), corpus.folder / f"w_s-{time.monotonic_ns()}"
    return _timed(lambda: save_selection(corpus.tokenized, rows, out, {}), paragraphs)


def neighbours(corpus: Corpus, paragraphs: int) -> tuple[int, float]:
    """Vectors to start from; of a large corpus, some of its paragraphs are counted."""
    source, recipe = corpus.tokenized, RECIPES[RECIPE]
    width = recipe.model_config_for(len(source.tokenizer), **SHAPE).width
    assert recipe.neighbour_window is not None
    window = recipe.neighbour_window
    # The time is that of the whole, not for a million.
    return _timed(lambda: token_vectors(source.paragraphs, source.tokenizer, width, window), MILLION)


def pretrain(corpus: Corpus, paragraphs: int) -> tuple[int, float]:
    """Steps of pre-training a BERT-1; a million are tokens here."""
    source, recipe = corpus.tokenized, RECIPES[RECIPE]
    config = recipe.model_config_for(len(source.tokenizer), **SHAPE)
    nothing = np.zeros((len(source.tokenizer), config.width), np.float32)
    _, run = pretraining_run(source.paragraphs, source.tokenizer, config, recipe, seed=0, vectors=nothing)
    tokens = 0

    def inputs_of(epoch: int, step: int) -> object:
        nonlocal tokens
        inputs = made(epoch, step)
        tokens += len(inputs.batch.ids)
        return inputs

    made, run.inputs_of = run.inputs_of, inputs_of  # type: ignore[assignment]
    for _ in range(WARM_UP):
        run.step()
    tokens = 0
    start = time.perf_counter()
    for _ in range(STEPS):
        run.step()
    return tokens, time.perf_counter() - start


CASES = {
    "read": read,
    "read and tokenize": read_and_tokenize,
    "count tokens": count,
    "select mismatched": select,
    "write a selection": write,
    "neighbours (once)": neighbours,
    "pre-train (per million tokens)": pretrain,
}


def measure_case(name: str, rounds: int, machine: Machine) -> Measured:
    """Measure one of CASES."""
    sizes = (PARAGRAPHS, max(PARAGRAPHS // SHARE, 1))
    CASES[name](corpus_of(sizes[1]), sizes[1])  # loads and compiles what is needed
    seconds, memory = np.zeros((rounds, 2)), np.zeros((rounds, 2))
    for row in range(rounds):
        for column, size in enumerate(sizes):
            corpus = corpus_of(size)
            with memory_taken() as taken:
                amount, took = CASES[name](corpus, size)
            seconds[row, column] = took * MILLION / amount
            memory[row, column] = taken()
    ours, tenth = memory.max(0).tolist()
    tokens: int = open_store(corpus_of(PARAGRAPHS).store)[1]["tokens"]
    details = {
        "paragraphs": PARAGRAPHS,
        "memory, MB": round(ours / 1e6),
        f"memory with 1/{SHARE} of them, MB": round(tenth / 1e6),
        "tokens per paragraph": round(tokens / PARAGRAPHS, 1),
    }
    return summarise(name, seconds, SECONDS, None, None, details)


@contextmanager
def memory_taken() -> Iterator[Callable[[], int]]:
    """Bytes by which this process has grown at most in the block, mapped files left out (Linux)."""
    _give_back()
    before = _anonymous()
    most, ended = before, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.02):
            most = max(most, _anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: most - before
    finally:
        ended.set()
        watcher.join()


def _give_back() -> None:
    """Give the system what earlier work has freed, which would hide the growth of later work."""
    with suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _anonymous() -> int:
    resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * 4096
