"""Word embeddings from neighbours: against sums written out, and what they say of words."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from tinylm.text.tokenizer import Tokenizer, train_tokenizer
from tinylm.train.cooccurrence import COLUMNS, largest_singular, start_from, token_vectors

TEXTS = [
    "the cat drinks milk",
    "the dog drinks milk",
    "a cat sleeps",
    "a dog sleeps",
    "wind moves leaves",
] * 6


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 300)


@pytest.mark.parametrize("window", [1, 3])
def test_vectors_span_the_positive_pointwise_mutual_information(tokenizer: Tokenizer, window: int) -> None:
    paragraphs = tokenizer.encode(TEXTS, 16)
    vocab = len(tokenizer)
    counts = np.zeros((vocab, vocab))
    for text in range(len(paragraphs)):
        tokens = [int(token) for token in paragraphs[text][1:-1]]  # without [CLS] and [SEP]
        for one, other in combinations(range(len(tokens)), 2):
            if other - one <= window:
                counts[tokens[one], tokens[other]] += 1
                counts[tokens[other], tokens[one]] += 1
    total = counts.sum(1)
    smoothed = total**0.75 / (total**0.75).sum()
    information = np.zeros((vocab, vocab))
    for row, column in zip(*np.nonzero(counts), strict=True):
        information[row, column] = max(0.0, math.log(counts[row, column] / total[row] / smoothed[column]))
    assert (information > 0).sum() > 10
    vectors = token_vectors(paragraphs, tokenizer, vocab, window)
    # With all dimensions, a vector's scalar products are those of the left singular vectors of
    # the matrix times its singular values: the square root of M M^T.
    left, strengths, _ = np.linalg.svd(information)
    expected = (left * strengths) @ left.T
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-3)


def test_the_largest_singular_vectors_are_those_of_the_full_decomposition() -> None:
    random = np.random.default_rng(0)
    full = np.zeros((400, 300), np.float32)
    rows, columns = random.integers(0, 400, 4000), random.integers(0, 300, 4000)
    np.add.at(full, (rows, columns), random.exponential(1 + 9 * (rows % 7 == 0)).astype(np.float32))
    count = COLUMNS + 6  # more than one block of columns
    left, strengths = largest_singular(sp.csr_matrix(full), count)
    all_left, all_strengths, _ = np.linalg.svd(full)
    assert left.shape == (400, count) and len(strengths) == count
    np.testing.assert_allclose(strengths[:20], all_strengths[:20], rtol=1e-3)
    np.testing.assert_allclose(left.T @ left, np.eye(count), atol=1e-4)
    # Each of the largest vectors lies in the span of the true ones.
    shares = np.linalg.norm(all_left[:, :30].T @ left[:, :20], axis=0)
    assert shares.min() > 0.99


def test_words_with_the_same_neighbours_are_close(tokenizer: Tokenizer) -> None:
    vectors = token_vectors(tokenizer.encode(TEXTS, 16), tokenizer, 6, 4)
    cat, dog, wind = (vectors[tokenizer.vocab.index(word)] for word in ("cat", "dog", "wind"))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(cat, dog) > 0.9
    assert abs(cosine(cat, wind)) < 0.1


def test_beginning_keeps_angles_lengths_and_what_has_no_vector(tokenizer: Tokenizer) -> None:
    vectors = token_vectors(tokenizer.encode(TEXTS, 16), tokenizer, 8, 4)
    torch.manual_seed(0)
    weight = torch.randn(len(tokenizer), 8)
    before = weight.clone()
    start_from(weight, vectors, seed=1)
    has_vector = np.linalg.norm(vectors, axis=1) > 1e-6  # others are rounding errors
    assert 0 < has_vector.sum() < len(tokenizer)
    assert torch.equal(weight[~has_vector], before[~has_vector])
    given = vectors[has_vector] / np.linalg.norm(vectors[has_vector], axis=1, keepdims=True)
    now = weight[has_vector].numpy() / float(before.norm(dim=1).median())
    np.testing.assert_allclose(now @ now.T, given @ given.T, atol=1e-5)
    other = before.clone()
    start_from(other, vectors, seed=2)
    assert not torch.allclose(other, weight)


def test_a_large_w_s_is_counted_in_part(tokenizer: Tokenizer) -> None:
    paragraphs = tokenizer.encode(TEXTS, 16)
    half = token_vectors(paragraphs, tokenizer, 8, 4, most_tokens=len(paragraphs.ids) // 2)
    rows = np.arange(0, len(paragraphs), 2)
    np.testing.assert_allclose(half, token_vectors(paragraphs.take(rows), tokenizer, 8, 4), atol=1e-5)


def test_text_without_neighbours_has_no_vectors(tokenizer: Tokenizer) -> None:
    assert not token_vectors(tokenizer.encode(["cat", "dog"], 16), tokenizer, 8, 4).any()
