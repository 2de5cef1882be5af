"""Word embeddings that pre-training starts from: which tokens occur near which in W_S.

Tokens that occur beside the same other tokens are alike. Masked language modelling spends its
first thousands of steps on learning this. The positive pointwise mutual information of all pairs
of tokens, reduced to its largest singular vectors, holds the same knowledge and takes seconds to
compute (Levy and Goldberg 2014). It is taken from W_S alone, so a model still knows nothing but W_S.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from tinylm.ops.threads import parallel
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import Tokenizer

# More text changes the vectors little and costs memory.
MOST_TOKENS = 5_000_000
SMOOTHING = 0.75  # power of the counts of neighbours, without which rare ones would dominate
ITERATIONS, OVERSAMPLED = 3, 10  # of the randomized singular value decomposition, and its further vectors
COLUMNS = 64  # of a product at a time: their rows, read at random, stay in the processor's cache


def token_vectors(
    paragraphs: TokenIds,
    tokenizer: Tokenizer,
    width: int,
    window: int,
    most_tokens: int = MOST_TOKENS,
) -> np.ndarray:
    """Vectors in which tokens with the same neighbours are close, most important dimension first.

    Args:
        paragraphs: W_S, in ids of `tokenizer`.
        tokenizer: its special tokens count as no one's neighbours.
        width: dimensions.
        window: two tokens of a paragraph are neighbours up to this distance.
        most_tokens: of a W_S with more, every second, third, ... paragraph is counted.

    Returns:
        `float32 [vocab, width]`; zeros for tokens that have no neighbour.
    """
    vocab = len(tokenizer)
    information = _positive_information(_neighbours(paragraphs, tokenizer, window, most_tokens))
    vectors = np.zeros((vocab, width), np.float32)
    if information.nnz:
        left, strengths = largest_singular(information, min(width, vocab))
        vectors[:, : len(strengths)] = left * np.sqrt(strengths)
    return vectors


def largest_singular(matrix: sp.csr_matrix, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest singular values of a matrix and their left singular vectors.

    The randomized method of Halko et al. (2011), as scikit-learn has it, but here its products, which take
    most of its time, use all threads and the cache.

    Args:
        matrix: `float32 [rows, columns]`.
        count: of the singular values, at most the rows and columns.

    Returns:
        The vectors, `float32 [rows, count]`, and the values, `float32 [count]`, falling.
    """
    transposed = matrix.T.tocsr()
    width = min(count + OVERSAMPLED, *matrix.shape)
    random = np.random.default_rng(0).standard_normal((matrix.shape[1], width), np.float32)
    basis = _orthonormal(_product(matrix, random))
    for _ in range(ITERATIONS):
        basis = _orthonormal(_product(matrix, _orthonormal(_product(transposed, basis))))
    # An SVD of the small matrix: that of its transpose's triangle.
    triangle = torch.linalg.qr(torch.from_numpy(_product(transposed, basis))).R
    left, strengths, _ = np.linalg.svd(triangle.numpy().T)
    return (basis @ left)[:, :count], strengths[:count]


def _orthonormal(x: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span those of `x`; with PyTorch's QR, four times as fast as NumPy's."""
    return torch.linalg.qr(torch.from_numpy(x)).Q.numpy()


def _product(matrix: sp.csr_matrix, x: np.ndarray) -> np.ndarray:
    """`matrix @ x`, blocks of columns side by side; scipy multiplies without the interpreter's lock."""
    out = np.empty((matrix.shape[0], x.shape[1]), np.float32)

    def multiply(part: int, first: int, last: int) -> None:
        for start in range(first * COLUMNS, last * COLUMNS, COLUMNS):
            columns = slice(start, start + COLUMNS)
            out[:, columns] = matrix @ np.ascontiguousarray(x[:, columns])

    parallel(multiply, -(-x.shape[1] // COLUMNS))
    return out


def start_from(weight: Tensor, vectors: np.ndarray, seed: int) -> None:
    """Give word embeddings the directions of `vectors` and the length of random ones, in place.

    The vectors are rotated at random, by `seed`, so that every head gets a share of the important
    dimensions and the members of a committee differ. Tokens without a vector keep their random weights.

    Args:
        weight: `float32 [vocab, width]`, initialised.
        vectors: `float32 [vocab, at least width]`, of `token_vectors`.
    """
    width = weight.shape[1]
    turn, _ = np.linalg.qr(np.random.default_rng([seed, 3]).standard_normal((width, width)))
    turned = torch.from_numpy((vectors[:, :width] @ turn).astype(np.float32))
    lengths = turned.norm(dim=1, keepdim=True)
    has_vector = lengths[:, 0] > 1e-6
    with torch.no_grad():
        usual = weight.norm(dim=1).median()
        weight[has_vector] = (turned / lengths.clamp_min(1e-6) * usual)[has_vector]


def _neighbours(paragraphs: TokenIds, tokenizer: Tokenizer, window: int, most_tokens: int) -> sp.csr_matrix:
    """How often two tokens are neighbours, symmetric `float32 [vocab, vocab]`."""
    every = max(1, -(-len(paragraphs.ids) // most_tokens))
    counted = paragraphs.take(np.arange(0, len(paragraphs), every))
    ids = counted.ids.astype(np.int32)
    paragraph = np.repeat(np.arange(len(counted), dtype=np.int32), counted.lengths)
    kept = ~np.isin(ids, tokenizer.special_ids)
    ids, paragraph = ids[kept], paragraph[kept]
    vocab = len(tokenizer)
    counts = sp.csr_matrix((vocab, vocab), dtype=np.float32)
    for distance in range(1, min(window, len(ids) - 1) + 1):
        both = paragraph[:-distance] == paragraph[distance:]
        pair = ids[:-distance][both], ids[distance:][both]
        counts += sp.csr_matrix((np.ones(len(pair[0]), np.float32), pair), shape=(vocab, vocab))
    return (counts + counts.T).tocsr()


def _positive_information(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Positive pointwise mutual information of each token and its neighbours."""
    total = np.asarray(counts.sum(1)).ravel()
    neighbour = total**SMOOTHING
    pairs = counts.tocoo()
    ratio = pairs.data / total[pairs.row] / (neighbour[pairs.col] / neighbour.sum())
    positive = ratio > 1
    cells = pairs.row[positive], pairs.col[positive]
    return sp.csr_matrix((np.log(ratio[positive]).astype(np.float32), cells), shape=counts.shape)
