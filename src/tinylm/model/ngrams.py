"""Word and character n-grams of many texts at once, as hashes.

The n-grams are those of scikit-learn's `TfidfVectorizer`: words of two characters or more and pairs of
them, and character n-grams that do not reach beyond a word (`analyzer="char_wb"`). Only Chinese, Japanese
and Korean characters and emoji, which scikit-learn ignores or joins to whole clauses, are words each.

No string is made for any n-gram. All texts form one array of code points, over which a polynomial is
rolled in arithmetic modulo 2^64, so that a text takes microseconds and numpy is all that is needed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHORTEST, LONGEST = 2, 5  # characters of a character n-gram
SHORTEST_WORD = 2
SPACE = ord(" ")
# Odd numbers without a pattern. Changing one makes stored models useless.
BASE, WORD_BASE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
SPREAD_1, SPREAD_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
HALF = np.uint64(32)
OUTSIDE, INSIDE, ALONE = 0, 1, 2


def _kind(character: str) -> int:
    """Whether a character is outside of words, inside as `\\w` of regular expressions has it, or a word."""
    is_letter = character.isalnum() or character == "_"
    is_wide = unicodedata.east_asian_width(character) in "WF"
    if unicodedata.category(character) == "So" or (is_letter and is_wide):
        return ALONE
    return INSIDE if is_letter else OUTSIDE


KINDS = np.array([_kind(chr(code)) for code in range(0x250)], np.uint8)  # of most texts' code points


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of some texts, each as often as it occurs.

    Attributes:
        hashes: `uint64 [n-grams]`, text after text; equal n-grams have equal hashes, different ones
            hardly ever.
        bounds: `int64 [texts + 1]`, where each text begins in `hashes`, and where the last one ends.
    """

    hashes: np.ndarray
    bounds: np.ndarray


def ngrams_of(texts: Sequence[str]) -> tuple[Ngrams, Ngrams]:
    """The words and pairs of words of the texts, and their character n-grams; case does not count."""
    plain = [" ".join(text.lower().split()) for text in texts]
    # Between two texts are two spaces, the end of one and the beginning of the other.
    joined = " " + "  ".join(plain) + " "
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    begins = np.cumsum([0, *(len(each) + 2 for each in plain)])
    values = (codes.astype(np.uint64) + np.uint64(1)) * SPREAD_1
    values = (values ^ (values >> HALF)) * SPREAD_2
    return _words(codes, values, begins), _characters(codes, values, begins)


def _characters(codes: np.ndarray, values: np.ndarray, begins: np.ndarray) -> Ngrams:
    """Windows of 2 to 5 characters without a space inside; one at either end is the word's."""
    space = codes == SPACE
    window, allowed = values, ~(space & np.roll(space, -1))
    sizes = range(SHORTEST, LONGEST + 1)
    hashes = np.empty((len(codes), len(sizes)), np.uint64)  # of the windows that begin at each character
    kept = np.zeros(hashes.shape, bool)
    for column, size in enumerate(sizes):
        window = window[:-1] * BASE + values[size - 1 :]
        allowed = allowed[:-1] if size == SHORTEST else allowed[:-1] & ~space[size - 2 : -1]
        hashes[: len(window), column], kept[: len(window), column] = window, allowed
    return _compressed(hashes, kept, begins)


def _words(codes: np.ndarray, values: np.ndarray, begins: np.ndarray) -> Ngrams:
    """Words of two characters or more, and pairs of such words that follow one another in a text."""
    kinds = _kinds(codes)
    inside = np.flatnonzero(kinds)
    alone = kinds.take(inside) == ALONE
    begin = (np.diff(inside, prepend=-2) > 1) | alone
    begin[1:] |= alone[:-1]
    first = np.flatnonzero(begin)  # of each word, a place in `inside`
    lengths = np.diff(first, append=len(inside))
    place = np.arange(len(inside)) - np.repeat(first, lengths)
    powers = np.cumprod(np.full(lengths.max(initial=0), WORD_BASE))
    words = np.zeros(0, np.uint64)
    if len(first):
        words = np.add.reduceat(values.take(inside) * powers.take(place), first)
    long_enough = (lengths >= SHORTEST_WORD) | alone[first]
    words = words.compress(long_enough)
    begins = np.searchsorted(inside[first.compress(long_enough)], begins)  # of texts, in `words`
    hashes = np.stack([words, words], axis=1)
    hashes[:-1, 1] = words[:-1] * BASE + words[1:]
    kept = np.ones(hashes.shape, bool)
    last = begins[1:] - 1
    kept[last[last >= 0], 1] = False  # the last word of a text is the first of no pair
    return _compressed(hashes, kept, begins)


def _compressed(hashes: np.ndarray, kept: np.ndarray, begins: np.ndarray) -> Ngrams:
    """The hashes `[places, kinds]` that are kept, and where texts begin among them."""
    before = np.concatenate([[0], np.cumsum(kept.sum(1))])
    return Ngrams(hashes.ravel().compress(kept.ravel()), before.take(begins))


def _kinds(codes: np.ndarray) -> np.ndarray:
    """What each code point is to words, `uint8 [characters]`: `OUTSIDE`, `INSIDE` or `ALONE`."""
    out = KINDS[np.minimum(codes, len(KINDS) - 1)]
    others = np.flatnonzero(codes >= len(KINDS))
    distinct, which = np.unique(codes[others], return_inverse=True)
    out[others] = np.array([_kind(chr(code)) for code in distinct.tolist()], np.uint8)[which]
    return out
