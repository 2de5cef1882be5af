"""The short form of `make soak`: under too much load, every request has its own response once, or a 503."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.soak import make_model, run


@pytest.mark.slow
def test_nothing_is_lost_under_load(tmp_path: Path) -> None:
    result = asyncio.run(run(make_model(tmp_path), seconds=5, workers=2, texts=16, seed=0))
    assert result["problems"] == []
    # How long responses take, and how much memory, is for `make soak` on a machine that does nothing else.
    assert result["outcomes"]["normal"]["200"] > 0
    assert sum(result["outcomes_sigterm"]["normal"].values()) > 0
