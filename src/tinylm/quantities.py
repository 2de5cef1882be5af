"""Settings that are a number with a unit, such as a time or a size."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tinylm.errors import UserError


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
