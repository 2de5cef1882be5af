"""Latency of answering one text, tokenizing included."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WARM_UP = 5  # calls that are not counted


@dataclass(frozen=True)
class Latency:
    """Milliseconds per text, one text at a time."""

    p50: float
    p95: float


def measure_latency(
    answers: Sequence[Callable[[Sequence[str]], object]], texts: Sequence[str]
) -> list[Latency]:
    """Time several models on the same texts, text by text in turn.

    In turn, because a shared machine changes its speed: every model sees the same
    moments.

    Args:
        answers: functions that take a list of texts, such as `Committee.predict`.
        texts: each is given alone.

    Returns:
        A `Latency` for each of `answers`.
    """
    for answer in answers:
        for text in texts[:WARM_UP]:
            answer([text])
    milliseconds = np.zeros((len(answers), len(texts)))
    for column, text in enumerate(texts):
        for row, answer in enumerate(answers):
            start = time.perf_counter()
            answer([text])
            milliseconds[row, column] = 1000 * (time.perf_counter() - start)
    return [Latency(*np.percentile(row, (50, 95)).tolist()) for row in milliseconds]
