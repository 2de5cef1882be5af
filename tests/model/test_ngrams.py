"""Hashed n-grams against those of scikit-learn's vectorizers."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from helpers.words import TOKEN_PATTERN
from tinylm.model.ngrams import Ngrams, ngrams_of

ANALYZERS = [
    TfidfVectorizer(ngram_range=(1, 2), token_pattern=TOKEN_PATTERN).build_analyzer(),
    TfidfVectorizer(ngram_range=(2, 5), analyzer="char_wb").build_analyzer(),
]
SPECIAL = [
    "",
    " ",
    "a",
    "a b",
    "ab cd",
    "Hello, world! Hello",
    "don't",
    "x_1 __",
    "你好，世界",
    "a你b好 cd",
    "ラーメン 김치",
    "สวัสดี",
    "🙂 🙂🙂",
]
CHARACTERS = "abAB  dé_ß'-.,\t\n\u3000\x1c你好ไทย🙂İ1²ǅ\u0301"


def texts_of(count: int) -> list[str]:
    chance = random.Random(0)
    return SPECIAL + ["".join(chance.choices(CHARACTERS, k=chance.randint(0, 30))) for _ in range(count)]


def by_text(ngrams: Ngrams) -> list[list[int]]:
    return [part.tolist() for part in np.split(ngrams.hashes, ngrams.bounds[1:-1])]


@pytest.mark.parametrize("kind", [0, 1])
def test_the_same_ngrams_as_scikit_learns(kind: int) -> None:
    """Each n-gram has one hash wherever it occurs, no two have the same, and none is missing or new."""
    texts = texts_of(400)
    alone: dict[str, int] = {}  # n-gram -> hash, from texts in which its count is unlike all others
    for text, hashes in zip(texts, by_text(ngrams_of(texts)[kind]), strict=True):
        expected, found = Counter(ANALYZERS[kind](text)), Counter(hashes)
        assert sorted(expected.values()) == sorted(found.values()), text
        for ngram, count in expected.items():
            if list(expected.values()).count(count) == 1:
                (number,) = (number for number, times in found.items() if times == count)
                assert alone.setdefault(ngram, number) == number, ngram
    every = {ngram for text in texts for ngram in ANALYZERS[kind](text)}
    assert len(alone) > 20
    assert len(set(ngrams_of(texts)[kind].hashes.tolist())) == len(every)


def test_a_text_does_not_depend_on_its_neighbours() -> None:
    texts = texts_of(50)
    together = [by_text(ngrams) for ngrams in ngrams_of(texts)]
    for number, text in enumerate(texts):
        alone = [sorted(ngrams.hashes.tolist()) for ngrams in ngrams_of([text])]
        assert alone == [sorted(kind[number]) for kind in together]
    assert [ngrams.bounds.tolist() for ngrams in ngrams_of([])] == [[0], [0]]


def test_hashes_stay_the_same() -> None:
    """Stored weights lie where these numbers point."""
    words, characters = ngrams_of(["Ab c"])
    assert words.hashes.tolist() == [18114394065789430319]
    assert characters.hashes[:2].tolist() == [16049940682277811934, 6217293974925559227]
