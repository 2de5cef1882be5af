"""Settings that are a number with a unit, such as a time or a size."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tinylm.errors import UserError

BYTES = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SECONDS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}


def quantity(
    value: str | float, units: Mapping[str, float], usual: str, setting: str, expected: str
) -> float:
    """A positive number out of words such as `"1.5h"`, in the unit whose factor is 1.

    Args:
        value: what was given; a bare number is in the usual unit.
        units: factor of each unit, in small letters.
        usual: one of them.
        setting: what the value is called, for the message.
        expected: what it should have been, for the message.

    Raises:
        UserError: anything else, or zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value).lower())
    unit = units.get(match[2] or usual) if match else None
    if match is None or unit is None or float(match[1]) == 0:
        raise UserError(f"{setting} is {value!r}; expected {expected}.")
    return float(match[1]) * unit


def seconds_of(budget: str | float) -> float:
    """Seconds of `"90s"`, `"5min"`, `"1.5h"` or a number of seconds.

    Raises:
        UserError: anything else, or no time at all.
    """
    return quantity(budget, SECONDS, "s", "budget", "a time such as '90s', '5min' or '1h'")


def bytes_of_size(size: str | float) -> float:
    """Bytes of `"10MB"`, `"800 kB"`, `"1.5GiB"` or a number of bytes.

    Raises:
        UserError: anything else, or nothing at all.
    """
    return quantity(size, BYTES, "b", "max_size", "a size such as '10MB' or '800kB'")
