"""Suite `select`: how fast the custom-made and mismatched selections scan a corpus, on one core.

A store of made-up paragraphs is written to a temporary folder and opened memory-mapped: token
frequencies as in Zipf's law, 72 to 128 tokens, so about 100 as in Wikipedia. Whole calls are
timed. The reference makes the same decision with one Python set per paragraph, on the first rows.
The default size is that of English Wikipedia and needs 1.4 GB of disk.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinylm.bench.measure import Machine, Measured, summarise
from tinylm.text.coverage import coverage
from tinylm.text.select import custom_made_rows, mismatched_rows
from tinylm.text.store import TokenIds, new_store, open_store

CASES = ("custom-made", "mismatched", "mismatched-half-t-m")
PARAGRAPHS = 6_400_000
VOCAB, T_C, W_S = 30_522, 12_829, 40_000
CLS, SEP = 101, 102
BLOCK = 50_000  # paragraphs written at a time
REFERENCE_ROWS = 20_000


def write_corpus(folder: Path, n_paragraphs: int) -> None:
    """Write `n_paragraphs` whose token `i` has a frequency of about 1 / (i + 1)."""
    rng = np.random.default_rng(0)
    with new_store(folder, {"source": "benchmark"}) as writer:
        for first in range(0, n_paragraphs, BLOCK):
            lengths = rng.integers(72, 129, min(BLOCK, n_paragraphs - first))
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            # The inverse of the distribution function log(x) / log(VOCAB) of a density 1 / x.
            ids = (VOCAB ** rng.random(offsets[-1], np.float32)).astype(np.uint16) - 1
            ids[offsets[:-1]], ids[offsets[1:] - 1] = CLS, SEP
            writer.append(TokenIds(ids, offsets))


def custom_made_reference(paragraphs: TokenIds, in_task: np.ndarray) -> list[int]:
    """The rows that qualify for `custom_made_rows`."""
    t_c = set(np.flatnonzero(in_task).tolist())
    return [row for row in range(len(paragraphs)) if set(paragraphs[row].tolist()) <= t_c]


def mismatched_reference(paragraphs: TokenIds, in_task: np.ndarray) -> list[int]:
    """All rows in the order in which they come to qualify for `mismatched_rows`."""
    t_c = set(np.flatnonzero(in_task).tolist())
    sets, counts = [], Counter[int]()
    for row in range(len(paragraphs)):
        tokens = paragraphs[row].tolist()
        counts.update(tokens)
        sets.append(set(tokens) & t_c)
    rank = {token: i for i, (token, _) in enumerate(counts.most_common())}
    return sorted(range(len(sets)), key=lambda row: max(rank[token] for token in sets[row]))


def rate(select: Callable[[], object], n_paragraphs: int) -> float:
    """Paragraphs per second of processor time, that is, per second of one core."""
    start = time.process_time()
    select()
    return n_paragraphs / (time.process_time() - start)


def measure_case(name: str, rounds: int, machine: Machine) -> Measured:
    """Measure one of CASES."""
    w_s = max(PARAGRAPHS * W_S // 6_400_000, 1)  # the same share of any corpus
    in_task = np.arange(VOCAB) < T_C  # the most frequent tokens
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "corpus", PARAGRAPHS)
        corpus, _ = open_store(Path(folder) / "corpus")
        sample = corpus.take(np.arange(min(REFERENCE_ROWS, PARAGRAPHS)))
        missing = None
        if name == "mismatched-half-t-m":
            largest = corpus.take(mismatched_rows(corpus, in_task, w_s))
            missing = coverage(largest, TokenIds.from_lists([np.flatnonzero(in_task)]), VOCAB).t_m // 2

        def ours() -> None:
            if name == "custom-made":
                custom_made_rows(corpus, in_task)
            else:
                mismatched_rows(corpus, in_task, w_s, missing)

        def reference() -> None:
            (custom_made_reference if name == "custom-made" else mismatched_reference)(sample, in_task)

        rates = np.array([[rate(ours, PARAGRAPHS), rate(reference, len(sample))] for _ in range(rounds)])
        # What Python and numpy allocate. Pages of the mapped file are not among it: they are the
        # kernel's cache, which it drops when memory runs short.
        tracemalloc.start()
        ours()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    details = {"paragraphs": PARAGRAPHS, "W_S": w_s, "T_M": missing, "peak, MB": round(peak / 1e6)}
    return summarise(name, rates, "rows/s", None, None, details)
