"""The short form of `make fuzz`: the same damaged files and requests each time."""

from __future__ import annotations

import pytest
from tests.fuzz import fuzz, targets


@pytest.mark.parametrize("name", targets())
def test_damage_is_refused_with_a_sentence(name: str) -> None:
    fuzz(name, examples=12 if name in ("settings", "request") else 40)
