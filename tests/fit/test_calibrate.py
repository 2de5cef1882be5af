"""What is expected of members before their weights are fitted, against entropies by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tinylm.fit.calibrate import trust_in


def right_in(share: float, texts: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two labels, all equally sure, of which a share is right; and the labels."""
    labels = np.arange(texts) % 2
    guessed = np.where(np.arange(texts) < share * texts, labels, 1 - labels)
    return 3.0 * np.eye(2)[guessed], labels


def entropy(share: float) -> float:
    return float(-share * np.log(share) - (1 - share) * np.log(1 - share))


def test_encoders_with_a_larger_loss_are_trusted_less() -> None:
    (good, labels), (bad, _) = right_in(0.9), right_in(0.8)
    # Once their temperature is right, the loss of members that are all equally sure is an entropy.
    assert trust_in(bad, good, labels) == pytest.approx((entropy(0.9) / entropy(0.8)) ** 4, rel=1e-3)
    assert trust_in(good, bad, labels) == 1
    assert trust_in(100 * good, good, labels) == pytest.approx(1, rel=1e-3)  # they are only too sure
    (good, labels), (bad, _) = right_in(0.9, texts=90), right_in(0.8, texts=90)
    assert trust_in(bad, good, labels) == 1  # too few to tell
