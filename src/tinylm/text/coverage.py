"""Token coverage: how much of a task's vocabulary the pre-training paragraphs contain.

The paper claims that the gain from pre-training grows with the overlap between the
tokens of W_S and those of the classification data.

Everything here is computed from two token counts. Like the paper's figures, they
count every id that occurs, [CLS], [SEP] and [UNK] included; padding is never stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tinylm.errors import UserError
from tinylm.text.store import TokenIds, batches_of

# numpy widens ids to 8 bytes to index with them: 2^20 tokens keep that at 8 MB.
CHUNK_TOKENS = 1 << 20
TOKEN_COUNTS = "token_counts.safetensors"  # beside a model: how often pre-training read each token


@dataclass(frozen=True)
class Coverage:
    """Overlap of pre-training paragraphs (W_S) with classification data.

    Attributes:
        paragraphs: W_S, the number of pre-training paragraphs.
        t_w: T_W, distinct tokens in them.
        t_c: T_C (T_FR, T_AGN, T_DBP), distinct tokens in the classification data, train and test.
        t_m: T_M, tokens of T_C that are missing from T_W.
        absent_from_task: tokens of T_W that are missing from T_C, the reverse case of the paper's
            discussion.
        weighted_overlap: of all token occurrences in the classification data, the share whose token
            is in T_W: 1 where T_M is 0, and close to 1 where only rare tokens are missing (the
            overlap by frequency that the discussion proposes).
    """

    paragraphs: int
    t_w: int
    t_c: int
    t_m: int
    absent_from_task: int
    weighted_overlap: float


def coverage(w_s: TokenIds, task: TokenIds, vocab_size: int) -> Coverage:
    """Measure how well the paragraphs `w_s` cover the tokens of a task.

    Args:
        w_s: The pre-training paragraphs.
        task: The texts of the classification data, train and test together.
        vocab_size: Size of the vocabulary that both were encoded with.

    Raises:
        UserError: an id outside the vocabulary, or a task without texts.
    """
    return coverage_by(token_counts(w_s, vocab_size), len(w_s), task)


def coverage_by(counts: np.ndarray, paragraphs: int, task: TokenIds) -> Coverage:
    """`coverage` where the paragraphs themselves are not at hand.

    Args:
        counts: their `token_counts`.
        paragraphs: their number, W_S.
        task: as in `coverage`.

    Raises:
        UserError: as in `coverage`.
    """
    if not len(task):
        raise UserError("The classification data hold no text, so token coverage cannot be measured.")
    in_w_s = counts > 0
    task_counts = token_counts(task, len(counts))
    in_task = task_counts > 0
    return Coverage(
        paragraphs=paragraphs,
        t_w=int(in_w_s.sum()),
        t_c=int(in_task.sum()),
        t_m=int((in_task & ~in_w_s).sum()),
        absent_from_task=int((in_w_s & ~in_task).sum()),
        weighted_overlap=float(task_counts[in_w_s].sum() / task_counts.sum()),
    )


def distinct_tokens(paragraphs: TokenIds, vocab_size: int) -> np.ndarray:
    """Which tokens occur in `paragraphs`, `bool [vocab_size]`; its sum is T_W or T_C.

    Raises:
        UserError: an id outside the vocabulary.
    """
    return token_counts(paragraphs, vocab_size) > 0


def token_counts(paragraphs: TokenIds, vocab_size: int) -> np.ndarray:
    """How often each token occurs in `paragraphs`, `int64 [vocab_size]`.

    Raises:
        UserError: an id outside the vocabulary.
    """
    counts = np.zeros(vocab_size, np.int64)
    for _, _, ids in chunks(paragraphs, vocab_size):
        counts += np.bincount(ids, minlength=vocab_size)
    return counts


def texts_with_token(paragraphs: TokenIds, vocab_size: int) -> np.ndarray:
    """In how many of `paragraphs` each token occurs, `int64 [vocab_size]`.

    Raises:
        UserError: an id outside the vocabulary.
    """
    counts = np.zeros(vocab_size, np.int64)
    for first, end, ids in chunks(paragraphs, vocab_size):
        text = np.repeat(np.arange(end - first), paragraphs.lengths[first:end])
        counts += np.bincount(np.unique(text * vocab_size + ids) % vocab_size, minlength=vocab_size)
    return counts


def write_token_counts(folder: Path, counts: np.ndarray) -> None:
    """Write `token_counts` into the folder of a model."""
    save_file({"counts": counts}, folder / TOKEN_COUNTS)


def read_token_counts(folder: Path, vocab_size: int) -> np.ndarray | None:
    """What `write_token_counts` wrote, `int64 [vocab_size]`; None where it did not.

    Raises:
        UserError: a damaged file, or counts of another vocabulary.
    """
    path = folder / TOKEN_COUNTS
    if not path.is_file():
        return None
    try:
        counts = np.asarray(load_file(path)["counts"], np.int64)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); write its folder again.") from error
    if counts.shape != (vocab_size,):
        raise UserError(f"{path} counts {counts.size:,} tokens; the vocabulary has {vocab_size:,}.")
    return counts


def chunks(paragraphs: TokenIds, vocab_size: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Whole paragraphs, about a million tokens at a time, so that memory stays bounded.

    Yields:
        First row, last row + 1, and their ids (`uint16 [tokens]`), all below `vocab_size`.

    Raises:
        UserError: an id outside the vocabulary.
    """
    for first, end in batches_of(paragraphs, CHUNK_TOKENS):
        ids = paragraphs.ids[paragraphs.offsets[first] : paragraphs.offsets[end]]
        largest = int(ids.max(initial=0))
        if largest >= vocab_size:
            raise UserError(
                f"Rows {first} to {end - 1} hold token id {largest}, but the vocabulary has {vocab_size} "
                "tokens; corpus and task must be encoded with the same tokenizer."
            )
        yield first, end, ids
