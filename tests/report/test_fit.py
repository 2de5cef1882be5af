"""Sentences of the page of a fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tinylm.fit.early_stopping import FinetuningLog
from tinylm.report.fit import _rival_training


def log(epochs: int, kept: int, patience: int | None) -> FinetuningLog:
    return FinetuningLog([{"loss": 1.0}] * epochs, kept, planned=30, patience=patience)


@pytest.mark.parametrize(
    ("logs", "words"),
    [
        (
            [log(14, 8, 6), log(20, 14, 6)],
            "until its validation score had not risen for 6 epochs, within at most 30 epochs; the epochs kept"
            " are 8 of 14, 14 of 20.",
        ),
        ([log(30, 29, 6), log(20, 14, 6)], " For 1 of 2 the epochs were over before that"),
        ([log(120, 120, None)] * 2, "were trained for 120, 120 epochs, a number set beforehand"),
    ],
)
def test_how_the_rival_was_trained_is_said(logs: list[FinetuningLog], words: str) -> None:
    fitted: Any = SimpleNamespace(histories=[SimpleNamespace(without=one) for one in logs])
    said = _rival_training(fitted)
    assert said is not None and words in said
    assert ("longer training" in said) == ("1 of 2" in words)
    assert _rival_training(SimpleNamespace(histories=[SimpleNamespace(without=None)])) is None  # type: ignore[arg-type]
