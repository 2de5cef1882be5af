"""How fast `tinylm corpus` makes token ids, and how much memory it takes.

Beside it stands the bare batch encoder of `tokenizers` on the same texts in memory, cut to
the characters that 128 tokens can need, which is the least that any tokenizing costs. Both
take turns. The corpus is `vital`, written several times over into one JSONL file so that
memory would show if it grew with the corpus:

    python benchmarks/corpus_throughput.py --copies 20
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from tinylm.bench.measure import alternate
from tinylm.bench.texts import openings
from tinylm.text.corpus import build_store, open_corpus, read_vital
from tinylm.text.prefix import CHARACTERS_PER_TOKEN, MAX_WORD

BATCH = 1000  # texts that the bare encoder is given at a time
MAX_TOKENS = 128


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tokenizer = openings()[0].tokenizer
    articles = [a for a in read_vital().values() if a["extract"].strip()]
    texts = [article["extract"] for article in articles] * arguments.copies
    cut = CHARACTERS_PER_TOKEN * (MAX_TOKENS + MAX_WORD)
    prefixes = [text[:cut] for text in texts]
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "corpus.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for copy in range(arguments.copies):
                for article in articles:
                    row = {"title": f"{article['title']} {copy}", "text": article["extract"]}
                    file.write(json.dumps(row) + "\n")
        numbers = iter(range(10**6))

        def ours() -> None:
            folder = Path(temporary) / f"store-{next(numbers)}"
            build_store(open_corpus(str(path)), tokenizer, folder, max_tokens=MAX_TOKENS)

        def bare() -> None:
            for first in range(0, len(prefixes), BATCH):
                tokenizer._backend.encode_batch_fast(prefixes[first : first + BATCH])

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ours()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        seconds = alternate([ours, bare], arguments.rounds, time.perf_counter)
    rates = len(texts) / np.median(seconds, axis=0)
    ratio = float(np.median(seconds[:, 1] / seconds[:, 0]))
    Console().print(
        f"{len(texts):,} articles: file to token store {rates[0]:,.0f}/s, bare encoder {rates[1]:,.0f}/s,"
        f" ratio {ratio:.2f}; memory grew by {grown:.0f} MB while the store was made"
    )


if __name__ == "__main__":
    main()
