"""The texts that are measured: real ones, because lengths decide what padding costs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tinylm.errors import UserError
from tinylm.system.paths import find_local
from tinylm.text.corpus import read_vital
from tinylm.text.prepare import TokenizedCorpus, prepare
from tinylm.text.tasks import load_task

VOCABULARY = 30_522  # of bert-base-uncased
N_LABELS = 10
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True)
class Sentences:
    """Short texts of a classification.

    Attributes:
        texts: in random order.
        labels: `int64 [texts]`, below N_LABELS.
        source: where they come from, in words.
    """

    texts: list[str]
    labels: np.ndarray
    source: str


@lru_cache
def openings(vocabulary: int | None = None) -> tuple[TokenizedCorpus, str]:
    """Article openings of `vital` in token ids, and in words which text and vocabulary that is.

    Args:
        vocabulary: tokens of a vocabulary trained on them; None is that of
            bert-base-uncased, or one of its size where it cannot be had.
    """
    if vocabulary is None:
        try:
            return prepare("vital"), "vital openings, vocabulary of bert-base-uncased"
        except UserError:
            vocabulary = VOCABULARY
    source = prepare("vital", vocabulary=vocabulary, strip_accents=True)
    return source, f"vital openings, vocabulary of {len(source.tokenizer):,} tokens trained on them"


@lru_cache
def sentences() -> Sentences:
    """FewRel's first ten relations where its file is available, otherwise first sentences of `vital`."""
    if find_local("fewrel/train_wiki.json"):
        task = load_task("fewrel", labels=range(N_LABELS))
        texts, labels, source = task.train_texts, task.train_labels, "FewRel sentences"
    else:
        articles = (article["extract"].strip() for article in read_vital().values())
        texts = [SENTENCE_END.split(text)[0] for text in articles if text]
        labels, source = np.arange(len(texts)) % N_LABELS, "first sentences of vital openings"
    order = np.random.default_rng(0).permutation(len(texts))
    return Sentences([texts[i] for i in order], labels[order], source)
