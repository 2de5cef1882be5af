"""How much training fits into a time: measured, not guessed.

A run's first steps are timed on a copy that is thrown away, then the number of epochs is
chosen so that the learning rate reaches zero just before the time is over. A deadline
stops what turns out slower than measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from tinylm.train.loop import Run

WARM_UP, MOST = 3, 50  # steps that are not counted, and that are
LONGEST, LONGEST_SHARE = 2.0, 0.05  # seconds of measuring, and their share of the time
SLACK = 0.9  # of a time that epochs are planned for: what follows is never faster than the measurement


def slots(sizes: Sequence[float], workers: int, seconds: float) -> list[float]:
    """When each of several jobs must end, so that all end within `seconds` of a common start.

    A job takes the worker that is free first, as `run_side_by_side` lets it, and shares its
    worker's time with the others there in proportion to its size.

    Args:
        sizes: of the jobs, largest first.
        workers: how many run at a time.
        seconds: for all of them.

    Returns:
        For each job the seconds from the start at which it must have ended.
    """
    loads = np.zeros(workers)
    places = []
    for size in sizes:
        worker = int(loads.argmin())
        loads[worker] += size
        places.append((worker, loads[worker]))
    return [float(seconds * end / loads[worker]) for worker, end in places]


def seconds_per_epoch(run: Run, n_texts: int, batch_size: int, seconds: float) -> float:
    """What one epoch takes, measured on a few steps.

    Args:
        run: one of the kind that will follow; it is spoilt by this.
        n_texts: of an epoch.
        batch_size: texts of a step.
        seconds: of which a small part may be spent on measuring.
    """
    longest = min(LONGEST, LONGEST_SHARE * seconds)
    for _ in range(WARM_UP):
        run.step()
    steps, start = 0, time.perf_counter()
    while not steps or (steps < MOST and time.perf_counter() - start < longest):
        run.step()
        steps += 1
    return (time.perf_counter() - start) / steps * -(-n_texts // batch_size)


def fit_into(
    seconds: float, epoch: float, n_texts: int, most_epochs: int, least_rows: int, seed: int
) -> tuple[int, np.ndarray]:
    """Epochs and rows that a time is enough for.

    Args:
        seconds: the time.
        epoch: seconds of an epoch.
        n_texts: of an epoch.
        most_epochs: more are never taken.
        least_rows: fewer are never taken.
        seed: of the choice of rows, where not even one epoch fits.

    Returns:
        The number of epochs, and the rows (`int64`, rising) to take them over.
    """
    left = SLACK * seconds
    rows = np.arange(n_texts)
    if left < epoch:
        kept = max(least_rows, int(n_texts * left / epoch))
        rows = np.sort(np.random.default_rng(seed).permutation(n_texts)[:kept])
    return int(np.clip(left / epoch, 1, most_epochs)), rows
