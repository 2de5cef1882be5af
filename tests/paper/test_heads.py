"""Single heads of a classifier, against an attention in which the other heads are cut out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tinylm.model.config import ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.model.logits import logits_of
from tinylm.paper.heads import silencing, single_heads
from tinylm.text.store import TokenIds


@pytest.fixture
def model() -> SequenceClassifier:
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=60, layers=2, heads=3, max_tokens=16, init_std=0.3)
    return SequenceClassifier(config, 4).eval()


def texts(count: int, seed: int) -> TokenIds:
    rng = np.random.default_rng(seed)
    return TokenIds.from_lists(
        [2, *rng.integers(5, 60, rng.integers(3, 12)).tolist(), 3] for _ in range(count)
    )


def test_a_silent_head_adds_nothing_to_the_attention(model: SequenceClassifier) -> None:
    """Silencing all but one equals setting the values of the others to zero."""
    attention: Any = model.encoder.blocks[-1].attention
    whole = logits_of(model, texts(20, 1))
    with silencing(model) as keep:
        keep([1])
        found = logits_of(model, texts(20, 1))
    np.testing.assert_array_equal(logits_of(model, texts(20, 1)), whole)  # all speak again
    with torch.no_grad():
        values = slice(attention.key_value.weight.shape[0] // 2, None)
        for head in (0, 2):
            rows = slice(values.start + 64 * head, values.start + 64 * (head + 1))
            attention.key_value.weight[rows] = 0
            attention.key_value.bias[rows] = 0
    np.testing.assert_allclose(found, logits_of(model, texts(20, 1)), atol=1e-5)
    assert np.abs(found - whole).max() > 1e-3


def test_the_best_heads_on_validation_texts_are_kept_longest(model: SequenceClassifier) -> None:
    test, held = texts(200, 2), texts(50, 3)
    with silencing(model) as keep:
        keep([2])  # labels that head 2 alone would predict
        labels, held_labels = logits_of(model, test).argmax(1), logits_of(model, held).argmax(1)
    encoded = SimpleNamespace(test=test, test_labels=labels, n_labels=4)
    data: Any = SimpleNamespace(encoded=encoded, validation=held, validation_labels=held_labels)
    before = logits_of(model, test)
    found = single_heads(model, data)
    present = np.unique(labels)
    assert found["validation"][2] == 1 and max(found["validation"][:2]) < 1
    assert [found["alone"][2][label] for label in present] == [1.0] * len(present)
    assert len(found["kept"]) == 4 and found["kept"][1] == 1
    assert found["kept"][3] == pytest.approx((before.argmax(1) == labels).mean())
    np.testing.assert_array_equal(logits_of(model, test), before)
