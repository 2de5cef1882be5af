"""Suite `corpus`: how fast a file becomes a token store, and how much memory that takes.

The reference is the bare batch encoder of `tokenizers` on the same texts in memory, cut to the
characters that 128 tokens can need: no tokenizing costs less. The corpus is `vital`, written several
times over into one JSONL file, so that memory would show if it grew with the corpus.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

from tinylm.bench.measure import Machine, Measured, alternate, summarise
from tinylm.bench.texts import openings
from tinylm.text.corpus import build_store, open_corpus, read_vital
from tinylm.text.prefix import CHARACTERS_PER_TOKEN, MAX_WORD

CASES = {"corpus-vital": 5}  # copies of it
BATCH = 1000  # texts that the bare encoder is given at a time
MAX_TOKENS = 128


def measure_case(name: str, rounds: int, machine: Machine) -> Measured:
    """Measure one of CASES."""
    tokenizer = openings()[0].tokenizer
    articles = [article for article in read_vital().values() if article["extract"].strip()]
    texts = [article["extract"] for article in articles] * CASES[name]
    cut = CHARACTERS_PER_TOKEN * (MAX_TOKENS + MAX_WORD)
    prefixes = [text[:cut] for text in texts]
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "corpus.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for copy in range(CASES[name]):
                for article in articles:
                    row = {"title": f"{article['title']} {copy}", "text": article["extract"]}
                    file.write(json.dumps(row) + "\n")
        numbers = itertools.count()

        def ours() -> None:
            folder = Path(temporary) / f"store-{next(numbers)}"
            build_store(open_corpus(str(path)), tokenizer, folder, max_tokens=MAX_TOKENS)

        def bare() -> None:
            for first in range(0, len(prefixes), BATCH):
                tokenizer._backend.encode_batch_fast(prefixes[first : first + BATCH])

        before = _peak()
        ours()
        grown = _peak() - before
        rates = len(texts) / alternate([ours, bare], rounds)
    details = {"texts": f"{len(texts):,} openings of vital", "memory grew by, MB": round(grown / 1024)}
    return summarise(name, rates, "texts/s", None, None, details)


def _peak() -> int:
    """The most memory that this process has had, in kB."""
    import resource  # which Windows has not

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
