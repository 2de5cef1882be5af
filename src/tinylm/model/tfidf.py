"""The TF-IDF member of a committee: a linear model on the words and characters of a text.

It reads strings, not tokens: words and pairs of words, and character n-grams, each kind weighted by
TF-IDF and scaled to length 1 by itself, as in the union of two of scikit-learn's
`TfidfVectorizer(sublinear_tf=True)`. It is hard to beat on few texts and it makes other mistakes than an
encoder does.

An n-gram's weights are the row of a table that its hash points to, so that nothing stores the n-grams
themselves. The first half of the table is for words, the second for characters. Everything is numpy.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinylm.model.ngrams import ngrams_of

MOST_CHARACTERS = 20_000  # of a text; the rest is not read
BATCH = 64  # texts that are hashed at a time


@dataclass(frozen=True)
class NgramCounts:
    """How often texts hold the n-grams of each row of a table.

    Attributes:
        row: `uint32 [entries]`; those of a text stand together and rise, so that its words come first.
        count: `int64 [entries]`, from 1.
        bounds: `int64 [2 x texts + 1]`, where the words and the characters of each text begin in `row`.
        n_rows: of the table.
    """

    row: np.ndarray
    count: np.ndarray
    bounds: np.ndarray
    n_rows: int

    def shares(self, idf: np.ndarray) -> np.ndarray:
        """The TF-IDF of each entry, `float32 [entries]`; words and characters of a text have length 1 each.

        Args:
            idf: `float32 [rows]`; 0 for rows that do not count.
        """
        strength = (1 + np.log(self.count.astype(np.float32))) * idf.take(self.row)
        # A last entry of 0, since a part that is empty may begin behind the others.
        squares = np.add.reduceat(np.append(strength * strength, np.float32(0)), self.bounds[:-1])
        inverse = 1 / np.sqrt(np.maximum(squares, np.float32(1e-12)))
        return np.asarray(strength * np.repeat(inverse, np.diff(self.bounds)))


def count_ngrams(texts: Sequence[str], n_rows: int) -> NgramCounts:
    """Count the n-grams of texts by the row of a table that each belongs to.

    Args:
        texts: strings; `MOST_CHARACTERS` of each are read.
        n_rows: of the table, a power of two up to 2^32.
    """
    found = [_count_batch(texts[i : i + BATCH], n_rows) for i in range(0, len(texts), BATCH)]
    if len(found) == 1:
        return found[0]
    row, count, lengths = (
        np.concatenate([np.zeros(0, kind), *arrays])
        for kind, arrays in (
            (np.uint32, [each.row for each in found]),
            (np.int64, [each.count for each in found]),
            (np.int64, [np.diff(each.bounds) for each in found]),
        )
    )
    return NgramCounts(row, count, np.concatenate([[0], lengths.cumsum()]), n_rows)


def _count_batch(texts: Sequence[str], n_rows: int) -> NgramCounts:
    """`count_ngrams` of at most `BATCH` texts."""
    parts = ngrams_of([text[:MOST_CHARACTERS] for text in texts])
    half = n_rows // 2
    drop = np.uint64(64 - half.bit_length() + 1)
    row = np.empty(sum(len(part.hashes) for part in parts), np.uint32)
    bounds = [0]
    rows = [
        (part.hashes >> drop).astype(np.uint32) + np.uint32(first)
        for part, first in zip(parts, (0, half), strict=True)
    ]
    ends = [part.bounds.tolist() for part in parts]
    for text in range(len(texts)):
        for part, end in zip(rows, ends, strict=True):
            found = row[bounds[-1] : bounds[-1] + end[text + 1] - end[text]]
            found[:] = part[end[text] : end[text + 1]]
            found.sort()  # much faster in small parts than all at once
            bounds.append(bounds[-1] + len(found))
    is_first = np.ones(len(row) + 1, bool)
    np.not_equal(row[1:], row[:-1], out=is_first[1:-1])
    is_first[bounds] = True
    first = np.flatnonzero(is_first)
    return NgramCounts(row.take(first[:-1]), np.diff(first), np.searchsorted(first, bounds), n_rows)


@dataclass(frozen=True)
class TfidfModel:
    """The trained model.

    Attributes:
        idf: `float32 [rows]`; 0 for rows that no training text had.
        weight: `int8 [rows, labels]`.
        scale: `float32 [rows, 1]`, which the rows of `weight` are multiplied by.
        bias: `float32 [labels]`.
    """

    idf: np.ndarray
    weight: np.ndarray
    scale: np.ndarray
    bias: np.ndarray

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Logits of texts, `float32 [texts, labels]`."""
        out = np.empty((len(texts), len(self.bias)), np.float32)
        for start in range(0, len(texts), BATCH):
            counts = count_ngrams(texts[start : start + BATCH], len(self.idf))
            shares = counts.shares(self.idf) * self.scale.ravel().take(counts.row)
            bounds = counts.bounds[::2].tolist()
            for text, (first, end) in enumerate(zip(bounds, bounds[1:], strict=False), start):
                rows = self.weight.take(counts.row[first:end], axis=0).astype(np.float32)
                np.matmul(shares[first:end], rows, out=out[text])
        out += self.bias
        return out

    def save(self, file: Path) -> None:
        """Write an export's `.npz`, which needs nothing but numpy to be read."""
        np.savez(file, idf=self.idf, weight=self.weight, scale=self.scale, bias=self.bias)

    @classmethod
    def load(cls, file: Path) -> TfidfModel:
        """Read what `save` wrote.

        Raises:
            ValueError: it wrote something else, such as compressed arrays, which may be larger than memory.
            OSError, TypeError: no such file, or others in it.
        """
        with zipfile.ZipFile(file) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ValueError("its arrays are compressed")
        with np.load(file, allow_pickle=False) as arrays:
            model = cls(**arrays)
        rows, labels = model.weight.shape
        expected = {"idf": (rows,), "weight": (rows, labels), "scale": (rows, 1), "bias": (labels,)}
        for name, shape in expected.items():
            array = getattr(model, name)
            if array.shape != shape or array.dtype != (np.int8 if name == "weight" else np.float32):
                raise ValueError(f"{name} is {array.dtype} {array.shape}")
        if rows < 4 or rows & (rows - 1):
            raise ValueError(f"it has {rows} rows")
        return model

    def cooled(self, temperature: float) -> TfidfModel:
        """The model whose logits are these divided by `temperature`."""
        by = np.float32(temperature)
        return TfidfModel(self.idf, self.weight, self.scale / by, self.bias / by)
