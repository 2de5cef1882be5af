"""How the report writes figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def mean_deviation(values: Sequence[float] | np.ndarray) -> str:
    """Mean and standard deviation, or what there is of them."""
    if not len(values):
        return ""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def interval_words(found: Interval | None) -> str:
    """A signed mean and its interval in brackets."""
    if found is None:
        return ""
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]".replace("-", "\N{MINUS SIGN}")


def number(value: float | None) -> str:
    """Three digits."""
    return "" if value is None else f"{value:.3f}"


def count(value: int | None) -> str:
    """With a comma at the thousands."""
    return "" if value is None else f"{value:,}"


def signed_mean_deviation(values: Sequence[float] | np.ndarray) -> str:
    """The same of differences, with their sign."""
    return f"{np.mean(values):+.3f} ± {np.std(values, ddof=1):.3f}".replace("-", "\N{MINUS SIGN}")
