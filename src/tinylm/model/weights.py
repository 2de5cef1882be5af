"""Weights as they are stored, which all that is made of them shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Weight:
    """A weight as it is stored.

    Attributes:
        data: fp32, or int8 with `scale`.
        scale: `float32 [..., 1]`, one for each row of `data`, or None.
        place: file and first byte of `data`; None if it is only in memory.
    """

    data: np.ndarray
    scale: np.ndarray | None = None
    place: tuple[Path, int] | None = None

    @property
    def value(self) -> np.ndarray:
        """The weight in fp32."""
        return self.data if self.scale is None else self.data * self.scale

    def __reduce__(self) -> tuple[Any, ...]:
        # The process that unpickles it may not find the file, or find another one.
        return Weight, (np.array(self.data), self.scale)


Weights = Mapping[str, Weight]  # under HuggingFace's names
