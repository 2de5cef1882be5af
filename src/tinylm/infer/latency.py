"""Latency of a prediction for one text, tokenizing included."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WARM_UP = 5  # calls that are not counted
IN_A_ROW = 10  # texts


@dataclass(frozen=True)
class Latency:
    """Milliseconds per text, one text at a time."""

    p50: float
    p95: float
    mean: float


def measure_latency(
    predictors: Sequence[Callable[[Sequence[str]], object]], texts: Sequence[str]
) -> list[Latency]:
    """Time several models on the same texts, in turn, one text at a time.

    In turn, because a shared machine changes its speed: every model sees the same
    moments. Each predicts some texts in a row, as it would in use; after every single
    text, the weights of the others would have pushed its own out of the processor's cache.

    Args:
        predictors: functions that take a list of texts, such as `Committee.predict`.
        texts: each is given alone.

    Returns:
        A `Latency` for each of `predictors`.
    """
    for predict in predictors:
        for text in texts[:WARM_UP]:
            predict([text])
    milliseconds = np.zeros((len(predictors), len(texts)))
    for first in range(0, len(texts), IN_A_ROW):
        for row, predict in enumerate(predictors):
            for column, text in enumerate(texts[first : first + IN_A_ROW], first):
                start = time.perf_counter()
                predict([text])
                milliseconds[row, column] = 1000 * (time.perf_counter() - start)
    p50, p95 = np.percentile(milliseconds, (50, 95), axis=1).tolist()
    means = milliseconds.mean(1).tolist()
    return [Latency(*figures) for figures in zip(p50, p95, means, strict=True)]
