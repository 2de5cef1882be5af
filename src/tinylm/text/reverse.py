"""The reverse mismatch: tokens of W_S that are absent from the task.

The paper's discussion leaves open whether they harm. To see it, W_S and T_M must be equal and
only the share of such tokens may differ. So three selections of one size are made together,
and rare tokens of the task are forbidden to two of them until all three lack as many.
"""

from __future__ import annotations

import numpy as np

from tinylm.errors import UserError
from tinylm.text.coverage import chunks, distinct_tokens
from tinylm.text.select import largest_entries, random_rows, ranks_in_task
from tinylm.text.store import TokenIds

MANY = 4  # of all paragraphs, the fourth with the largest share of absent tokens counts as "many"


def reverse_rows(
    paragraphs: TokenIds, in_task: np.ndarray, w_s: int, seed: int = 42
) -> dict[str, np.ndarray]:
    """Three W_S of one size and nearly one T_M, with few and many tokens absent from the task.

    Args:
        paragraphs: the corpus.
        in_task: `bool [vocab_size]`, the tokens of T_C.
        w_s: paragraphs wanted.
        seed: of the shuffle that all three walk through.

    Returns:
        Row numbers, `int64 [w_s]` each: `none` has only tokens of the task (custom-made), `some`
        is drawn whatever other tokens it has, `many` from the paragraphs with most of them.

    Raises:
        UserError: too few paragraphs qualify.
    """
    absent = _absent_share(paragraphs, in_task)
    order = random_rows(len(paragraphs), len(paragraphs), seed)
    bounds = {"none": absent == 0, "some": absent >= 0, "many": absent >= np.quantile(absent, 1 - 1 / MANY)}
    pools = {name: order[allowed[order]] for name, allowed in bounds.items()}
    # As in a mismatched selection: of T_C, only the r tokens most frequent in the corpus are allowed.
    needed = largest_entries(paragraphs, ranks_in_task(paragraphs, in_task))
    for name, pool in pools.items():
        if len(pool) < w_s:
            raise UserError(
                f"Only {len(pool)} of {len(paragraphs)} paragraphs qualify for the reverse selection"
                f" '{name}', but W_S is {w_s}; give a larger corpus or a smaller W_S."
            )

    def sample(pool: np.ndarray, r: int) -> np.ndarray:
        return pool[np.flatnonzero(needed[pool] <= r)[:w_s]]

    def t_m(rows: np.ndarray) -> int:
        return int((in_task & ~distinct_tokens(paragraphs.take(rows), len(in_task))).sum())

    highest = int(needed.max())
    target = max(t_m(sample(pool, highest)) for pool in pools.values())
    chosen = {}
    for name, pool in pools.items():
        low, high = int(np.partition(needed[pool], w_s - 1)[w_s - 1]), highest
        while high - low > 1:  # T_M falls as r grows
            r = (low + high) // 2
            low, high = (r, high) if t_m(sample(pool, r)) >= target else (low, r)
        chosen[name] = min((sample(pool, low), sample(pool, high)), key=lambda rows: abs(t_m(rows) - target))
    return chosen


def _absent_share(paragraphs: TokenIds, in_task: np.ndarray) -> np.ndarray:
    """Share of each paragraph's tokens that the task has not, `float64 [paragraphs]`."""
    absent = np.zeros(len(paragraphs))
    foreign = ~in_task
    foreign[np.asarray(paragraphs.ids[[0, -1]])] = False  # [CLS] and [SEP]
    for first, end, ids in chunks(paragraphs, len(in_task)):
        starts = paragraphs.offsets[first:end] - paragraphs.offsets[first]
        absent[first:end] = np.add.reduceat(foreign.take(ids).astype(np.int64), starts)
    return absent / paragraphs.lengths
