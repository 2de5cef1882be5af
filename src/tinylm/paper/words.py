"""How the report writes figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinylm.paper.statistics import Interval


def mean_deviation(values: Sequence[float]) -> str:
    """Mean and standard deviation, or what there is of them."""
    if not values:
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
