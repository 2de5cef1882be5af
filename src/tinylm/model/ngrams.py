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
    """The n-grams of some texts, each as often as it occurs, in no particular order.

    Attributes:
        hashes: `uint64 [n-grams]`; equal n-grams have equal hashes, different ones hardly ever.
        text: `uint32 [n-grams]`, the number of the text that an n-gram is in.
    """

    hashes: np.ndarray
    text: np.ndarray


def ngrams_of(texts: Sequence[str]) -> tuple[Ngrams, Ngrams]:
    """The words and pairs of words of the texts, and their character n-grams; case does not count."""
    plain = [" ".join(text.lower().split()) for text in texts]
    # Between two texts are two spaces, the end of one and the beginning of the other.
    joined = " " + "  ".join(plain) + " "
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    text = np.repeat(np.arange(len(plain), dtype=np.uint32), [len(each) + 2 for each in plain])
    values = (codes.astype(np.uint64) + np.uint64(1)) * SPREAD_1
    values = (values ^ (values >> HALF)) * SPREAD_2
    return _words(codes, values, text), _characters(codes, values, text)


def _characters(codes: np.ndarray, values: np.ndarray, text: np.ndarray) -> Ngrams:
    """Windows of 2 to 5 characters without a space inside; one at either end is the word's."""
    space = codes == SPACE
    window, allowed = values, ~(space & np.roll(space, -1))
    hashes, texts = [], []
    for size in range(SHORTEST, LONGEST + 1):
        window = window[:-1] * BASE + values[size - 1 :]
        allowed = allowed[:-1] if size == SHORTEST else allowed[:-1] & ~space[size - 2 : -1]
        hashes.append(window.compress(allowed))  # several times as fast as an index
        texts.append(text[: len(window)].compress(allowed))
    return Ngrams(np.concatenate(hashes), np.concatenate(texts))


def _words(codes: np.ndarray, values: np.ndarray, text: np.ndarray) -> Ngrams:
    """Words of two characters or more, and pairs of such words that follow one another in a text."""
    kinds = _kinds(codes)
    inside = np.flatnonzero(kinds)
    alone = kinds.take(inside) == ALONE
    begins = (np.diff(inside, prepend=-2) > 1) | alone
    begins[1:] |= alone[:-1]
    first = np.flatnonzero(begins)  # of each word, a place in `inside`
    lengths = np.diff(first, append=len(inside))
    place = np.arange(len(inside)) - np.repeat(first, lengths)
    powers = np.cumprod(np.full(lengths.max(initial=0), WORD_BASE))
    words = np.zeros(0, np.uint64)
    if len(first):
        words = np.add.reduceat(values.take(inside) * powers.take(place), first)
    long_enough = (lengths >= SHORTEST_WORD) | alone[first]
    words, words_text = words[long_enough], text[inside[first[long_enough]]]
    pairs = words[:-1] * BASE + words[1:]
    neighbours = words_text[:-1] == words_text[1:]
    return Ngrams(
        np.concatenate([words, pairs[neighbours]]),
        np.concatenate([words_text, words_text[:-1][neighbours]]),
    )


def _kinds(codes: np.ndarray) -> np.ndarray:
    """What each code point is to words, `uint8 [characters]`: `OUTSIDE`, `INSIDE` or `ALONE`."""
    out = KINDS[np.minimum(codes, len(KINDS) - 1)]
    others = np.flatnonzero(codes >= len(KINDS))
    distinct, which = np.unique(codes[others], return_inverse=True)
    out[others] = np.array([_kind(chr(code)) for code in distinct.tolist()], np.uint8)[which]
    return out
