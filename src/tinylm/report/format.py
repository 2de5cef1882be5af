"""How reports and tables write figures and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def number(value: float | None) -> str:
    """Three digits after the point, as in 0.887; nothing for None."""
    return "" if value is None else f"{value:.3f}"


def signed(value: float | None, digits: int = 3) -> str:
    """The same of a difference, with its sign."""
    return "" if value is None else f"{value:+.{digits}f}".replace("-", MINUS)


def count(value: int | None) -> str:
    """A whole number with a comma at the thousands; nothing for None."""
    return "" if value is None else f"{value:,}"


def mean_deviation(values: Sequence[float] | np.ndarray) -> str:
    """Mean and standard deviation; the value itself where there is only one."""
    if not len(values):
        return ""
    return number(float(np.mean(values))) + _deviation(values)


def signed_mean_deviation(values: Sequence[float] | np.ndarray) -> str:
    """The same of differences, with their sign."""
    if not len(values):
        return ""
    return signed(float(np.mean(values))) + _deviation(values)


def _deviation(values: Sequence[float] | np.ndarray) -> str:
    return f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""


def range_words(limits: tuple[float, float]) -> str:
    """An interval in words, as in "0.879 to 0.899"."""
    return " to ".join(map(number, limits))


def interval_words(found: Interval | None) -> str:
    """A signed mean and its interval in brackets."""
    if found is None:
        return ""
    return f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}]"


def percent(value: float) -> str:
    """A share in whole percent, as in "83 %"."""
    return f"{value:.0%}".replace("%", " %")


def duration(seconds: float) -> str:
    """Minutes and seconds, as in "4 min 47 s"."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s"


def two_digits(value: float) -> str:
    """Two digits after the point, for milliseconds and confidences."""
    return f"{value:.2f}"


def cut(text: str, width: int) -> str:
    """At most `width` characters of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def cut_name(name: str, width: int) -> str:
    """At most `width` characters of a name, cut in the middle.

    The end keeps more than the beginning: names such as "customer service / billing" differ there.
    """
    if len(name) <= width:
        return name
    end = 2 * (width - 1) // 3
    return f"{name[: width - 1 - end]}…{name[len(name) - end :]}"


def row_and_column_names(
    names: Sequence[str], row_width: int, column_width: int
) -> tuple[list[str], list[str]]:
    """Names for a table whose rows and columns are the same.

    Args:
        names: in full.
        row_width: characters that a row's name has room for, at least `column_width`.
        column_width: characters that a column's name has room for.

    Returns:
        Short names of the rows and of the columns. Where short names of the columns would look the
        same, a column is a number, which precedes the name of the row.
    """
    columns = [cut_name(name, max(column_width, 5)) for name in names]
    rows = [cut_name(name, row_width) for name in names]
    fits = max(map(len, columns)) <= column_width
    if fits and len(set(columns)) == len(set(names)):
        return rows, columns
    numbers = [str(number) for number in range(1, len(names) + 1)]
    return [f"{number} {row}" for number, row in zip(numbers, rows, strict=True)], numbers
