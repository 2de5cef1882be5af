"""The ways to choose W_S: random, custom-made, mismatched, and with tokens that the task lacks.

All walk through one seeded shuffle of the corpus and keep the first paragraphs
that meet a condition. They differ only in the condition: with every token allowed,
custom-made and mismatched give the random selection.

The paper's mismatch is T_M: tokens of the task (T_C) that W_S lacks. The reverse
mismatch, an open question of its discussion, is tokens of W_S that the task lacks.

A condition costs one table lookup per token and one reduction per paragraph, in
chunks: Wikipedia's 6.4 million paragraphs are read once from the memory-mapped
store and only one number per paragraph is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinylm.errors import UserError
from tinylm.text.coverage import chunks, distinct_tokens, token_counts
from tinylm.text.store import TokenIds

# Paragraphs with "many" tokens that the task lacks: the top quarter by the share of such tokens.
MANY_QUANTILE = 0.75
SHARES_TRIED = 24  # limits on the tokens outside T_C, to find the nearest share


def random_rows(n_paragraphs: int, w_s: int, seed: int = 42) -> np.ndarray:
    """Random W_S: the first `w_s` rows of a seeded shuffle (section 2.2).

    Equal to `shuffle(seed).select(range(w_s))` of HuggingFace `datasets`.

    Args:
        n_paragraphs: Paragraphs in the corpus.
        w_s: Paragraphs wanted.
        seed: The paper's is 42.

    Returns:
        Row numbers, `int64 [w_s]`.

    Raises:
        UserError: `w_s` is below 1 or larger than the corpus.
    """
    _check_size(n_paragraphs, w_s)
    return _shuffle(n_paragraphs, seed)[:w_s]


def custom_made_rows(
    paragraphs: TokenIds, allowed: np.ndarray, w_s: int | None = None, seed: int = 42
) -> np.ndarray:
    """Custom-made W_S: paragraphs composed solely of tokens of T_C (section 2.1).

    Args:
        paragraphs: The corpus.
        allowed: `bool [vocab_size]`, the tokens of T_C. [CLS] and [SEP] are allowed anyway.
        w_s: Paragraphs wanted, or None for all that qualify, as in the paper.
        seed: Which of them, and in which order.

    Returns:
        Row numbers, `int64 [w_s]`.

    Raises:
        UserError: fewer paragraphs than wanted qualify, or none, or the corpus is smaller than `w_s`.
    """
    _check_size(len(paragraphs), 1 if w_s is None else w_s)
    forbidden = ~allowed
    forbidden[_frame(paragraphs)] = False
    qualifies = largest_entries(paragraphs, forbidden.astype(np.uint8)) == 0
    order = _shuffle(len(paragraphs), seed)
    rows: np.ndarray = order[qualifies[order]]
    if len(rows) < (w_s or 1):
        raise UserError(
            f"{len(rows)} of {len(paragraphs)} paragraphs consist solely of the {int(allowed.sum())} tokens "
            f"of the classification data, but W_S {'needs at least 1' if w_s is None else f'is {w_s}'}; "
            "give a larger corpus, more labelled texts or a smaller W_S."
        )
    return rows[:w_s]


def mismatched_rows(
    paragraphs: TokenIds,
    in_task: np.ndarray,
    w_s: int,
    missing: int | None = None,
    seed: int = 42,
    *,
    nearest: bool = False,
) -> np.ndarray:
    """Mismatched W_S: a given size, but many tokens of the task missing (Tables 4 and 7).

    Allowed are the tokens absent from the task and the r tokens of T_C that are most frequent in the
    corpus. The smaller r, the larger T_M, and the fewer paragraphs qualify.

    Args:
        paragraphs: The corpus.
        in_task: `bool [vocab_size]`, the tokens of T_C.
        w_s: Paragraphs wanted.
        missing: The wanted T_M, or None for that of the smallest r at which `w_s` paragraphs qualify.
        seed: Which of the qualifying paragraphs.
        nearest: Take the nearest T_M in reach where `missing` is out of it.

    Returns:
        Row numbers, `int64 [w_s]`. Their T_M is the nearest to `missing` that the search over r
        found; `coverage` measures it.

    Raises:
        UserError: a T_M out of reach, or `w_s` is below 1 or larger than the corpus.
    """
    _check_size(len(paragraphs), w_s)
    needed = largest_entries(paragraphs, ranks_in_task(paragraphs, in_task))
    order = _shuffle(len(paragraphs), seed)
    fewest = int(np.partition(needed, w_s - 1)[w_s - 1])
    if missing is None:
        return _first_within(order, needed, fewest, w_s)

    def measure(r: int) -> int:
        return _t_m(paragraphs, _first_within(order, needed, r, w_s), in_task)

    low, high = fewest, int(needed.max())
    t_m = {r: measure(r) for r in (low, high)}
    if not nearest and not t_m[high] <= missing <= t_m[low]:
        raise UserError(
            f"T_M {missing} is out of reach for W_S {w_s} in this corpus: it can be from {t_m[high]} "
            f"(random paragraphs) to {t_m[low]} (as many of the task's tokens avoided as possible)."
        )
    # T_M is counted on the drawn sample: avoided tokens are not the only ones that it may lack.
    while high - low > 1:
        r = (low + high) // 2
        t_m[r] = measure(r)
        low, high = (r, high) if t_m[r] >= missing else (low, r)
    best = min(t_m, key=lambda r: abs(t_m[r] - missing))
    return _first_within(order, needed, best, w_s)


def same_lengths_rows(paragraphs: TokenIds, like: np.ndarray, seed: int = 42) -> np.ndarray:
    """A random W_S whose paragraphs are as long as those of another one.

    What a strict selection changes beside its tokens is the length of its paragraphs, since short ones
    qualify more easily. This is the control for it.

    Args:
        paragraphs: The corpus.
        like: Rows of the other W_S.
        seed: Of the shuffle.

    Returns:
        Row numbers, `int64 [len(like)]`: of each length as many as in `like`, the first of the shuffle.
    """
    lengths = np.asarray(paragraphs.lengths)
    order = _shuffle(len(paragraphs), seed)
    wanted = np.bincount(lengths[like], minlength=lengths.max() + 1)
    by_length = np.argsort(lengths[order], kind="stable")  # of each length, as in the shuffle
    first = np.cumsum(np.bincount(lengths)) - np.bincount(lengths)
    number_in_length = np.empty(len(order), np.int64)
    number_in_length[by_length] = np.arange(len(order)) - first[lengths[order[by_length]]]
    return order[number_in_length < wanted[lengths[order]]]


def reverse_rows(
    paragraphs: TokenIds, in_task: np.ndarray, w_s: int, seed: int = 42
) -> dict[str, np.ndarray]:
    """The reverse mismatch: three W_S of one size and nearly one T_M, with few to many tokens that T_C lacks.

    Args:
        paragraphs: The corpus.
        in_task: `bool [vocab_size]`, the tokens of T_C.
        w_s: Paragraphs wanted.
        seed: Of the shuffle that all three walk through.

    Returns:
        Row numbers, `int64 [w_s]` each: `none` has only tokens of the task (custom-made), `some`
        is drawn whatever other tokens it has, `many` from the quarter of the paragraphs with most of them.

    Raises:
        UserError: too few paragraphs qualify.
    """
    absent = _absent_share(paragraphs, in_task)
    order = random_rows(len(paragraphs), len(paragraphs), seed)
    qualifies = {
        "none": absent == 0,
        "some": absent >= 0,
        "many": absent >= np.quantile(absent, MANY_QUANTILE),
    }
    pools = {name: order[allowed[order]] for name, allowed in qualifies.items()}
    for name, pool in pools.items():
        if len(pool) < w_s:
            raise UserError(
                f"Only {len(pool)} of {len(paragraphs)} paragraphs qualify for the reverse selection"
                f" '{name}', but W_S is {w_s}; give a larger corpus or a smaller W_S."
            )

    return dict(zip(pools, _of_one_t_m(paragraphs, in_task, list(pools.values()), w_s), strict=True))


def reverse_share_rows(
    paragraphs: TokenIds, in_task: np.ndarray, w_s: int, share: float, seed: int = 42
) -> np.ndarray:
    """A reverse mismatch by its share: of T_W, about `share` lies outside T_C; T_M stays nearly the same.

    Tokens outside T_C are allowed from the most frequent one on. Where all of them are not enough, paragraphs
    are drawn from those with the largest share of such tokens.

    Args:
        paragraphs: The corpus.
        in_task: `bool [vocab_size]`, the tokens of T_C.
        w_s: Paragraphs wanted.
        share: Of the distinct tokens of W_S, those outside T_C, from 0 to 1.
        seed: Of the shuffle.

    Returns:
        Row numbers, `int64 [w_s]`: of the W_S that were tried, the one nearest to the share.

    Raises:
        UserError: fewer than `w_s` paragraphs have tokens of the task alone.
    """
    vocab_size = len(in_task)
    custom_made_rows(paragraphs, in_task, w_s, seed)  # says how many qualify, if they are too few
    order = _shuffle(len(paragraphs), seed)
    rank = largest_entries(paragraphs, ranks_in_task(paragraphs, ~in_task))
    absent = _absent_share(paragraphs, in_task)
    limits = np.unique(np.geomspace(1, max(int(rank.max()), 1), SHARES_TRIED).astype(int))
    quantiles = np.linspace(0, MANY_QUANTILE, SHARES_TRIED // 2)  # beyond it, T_M of all would be large
    pools = [order[rank[order] == 0], *(order[rank[order] <= limit] for limit in limits)]
    pools += [order[absent[order] >= np.quantile(absent, quantile)] for quantile in quantiles[1:]]
    pools = [pool for pool in pools if len(pool) >= w_s]

    def distance(rows: np.ndarray) -> float:
        tokens = distinct_tokens(paragraphs.take(rows), vocab_size)
        return abs(float((tokens & ~in_task).sum() / tokens.sum()) - share)

    return min(_of_one_t_m(paragraphs, in_task, pools, w_s), key=distance)


def _of_one_t_m(
    paragraphs: TokenIds, in_task: np.ndarray, pools: Sequence[np.ndarray], w_s: int
) -> list[np.ndarray]:
    """The first `w_s` rows of each pool whose tokens of T_C are so limited that all have nearly one T_M.

    As in a mismatched selection, T_M rises when fewer tokens of T_C are allowed: all are brought to that of
    the one whose T_M is largest without a limit.
    """
    needed = largest_entries(paragraphs, ranks_in_task(paragraphs, in_task))

    def measure(rows: np.ndarray) -> int:
        return _t_m(paragraphs, rows, in_task)

    no_limit = int(needed.max())
    target = max(measure(_first_within(pool, needed, no_limit, w_s)) for pool in pools)
    chosen = []
    for pool in pools:
        low, high = int(np.partition(needed[pool], w_s - 1)[w_s - 1]), no_limit
        while high - low > 1:
            r = (low + high) // 2
            enough = measure(_first_within(pool, needed, r, w_s)) >= target
            low, high = (r, high) if enough else (low, r)
        candidates = [_first_within(pool, needed, r, w_s) for r in (low, high)]
        chosen.append(min(candidates, key=lambda rows: abs(measure(rows) - target)))
    return chosen


def _check_size(n_paragraphs: int, w_s: int) -> None:
    if not 1 <= w_s <= n_paragraphs:
        raise UserError(f"W_S is {w_s}, but must be from 1 to the {n_paragraphs} paragraphs of the corpus.")


def _shuffle(n_paragraphs: int, seed: int) -> np.ndarray:
    """All rows in the order of HuggingFace `datasets`' `shuffle(seed)`, `int64 [n_paragraphs]`."""
    return np.random.default_rng(seed).permutation(n_paragraphs)


def _frame(paragraphs: TokenIds) -> np.ndarray:
    """The ids of [CLS] and [SEP], which open and close every paragraph whatever the tokenizer."""
    return np.asarray(paragraphs.ids[[0, -1]])


def ranks_in_task(paragraphs: TokenIds, in_task: np.ndarray) -> np.ndarray:
    """Rank of each token of T_C by its frequency in the corpus, `uint16 [vocab_size]`.

    The most frequent has 1; [CLS], [SEP] and the tokens outside T_C, which are always allowed, 0.
    """
    counts = token_counts(paragraphs, len(in_task))
    ranked = in_task.copy()
    ranked[_frame(paragraphs)] = False
    tokens = np.flatnonzero(ranked)
    rank = np.zeros(len(in_task), np.uint16)
    rank[tokens[np.argsort(-counts[tokens], kind="stable")]] = np.arange(1, len(tokens) + 1)
    return rank


def largest_entries(paragraphs: TokenIds, table: np.ndarray) -> np.ndarray:
    """The largest entry of `table [vocab_size]` among the tokens of each paragraph, `[paragraphs]`."""
    largest = np.empty(len(paragraphs), table.dtype)
    for first, end, ids in chunks(paragraphs, len(table)):
        starts = paragraphs.offsets[first:end] - paragraphs.offsets[first]
        largest[first:end] = np.maximum.reduceat(table.take(ids), starts)
    return largest


def _absent_share(paragraphs: TokenIds, in_task: np.ndarray) -> np.ndarray:
    """Share of each paragraph's tokens that the task lacks, `float64 [paragraphs]`."""
    foreign = ~in_task
    foreign[_frame(paragraphs)] = False
    absent = np.zeros(len(paragraphs))
    for first, end, ids in chunks(paragraphs, len(in_task)):
        starts = paragraphs.offsets[first:end] - paragraphs.offsets[first]
        absent[first:end] = np.add.reduceat(foreign.take(ids).astype(np.int64), starts)
    return absent / paragraphs.lengths


def _first_within(pool: np.ndarray, needed: np.ndarray, r: int, w_s: int) -> np.ndarray:
    """The first `w_s` rows of `pool` whose tokens of T_C are all among the r most frequent ones.

    Args:
        pool: `int64`, rows in the order in which they are drawn.
        needed: the smallest such r of every paragraph of the corpus.
        r: how many tokens of T_C are allowed.
        w_s: paragraphs wanted.
    """
    return pool[np.flatnonzero(needed[pool] <= r)[:w_s]]


def _t_m(paragraphs: TokenIds, rows: np.ndarray, in_task: np.ndarray) -> int:
    """T_M of a selection: tokens of T_C that do not occur in its paragraphs."""
    return int((in_task & ~distinct_tokens(paragraphs.take(rows), len(in_task))).sum())
