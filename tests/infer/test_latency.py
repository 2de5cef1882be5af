"""Latency on a clock of our own, and the TF-IDF baseline on a case by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tinylm.infer import latency


def test_each_model_is_timed_by_itself_one_text_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now)

    def model(name: str, seconds: float) -> latency.Callable[[Sequence[str]], object]:
        def predict(texts: Sequence[str]) -> None:
            nonlocal now
            (text,) = texts
            seen.append((name, text))
            now += seconds * len(text)

        return predict

    texts = ["x" * length for length in range(1, 101)]
    slow, fast = latency.measure_latency([model("slow", 0.003), model("fast", 0.001)], texts)
    assert slow.p50 == pytest.approx(3 * 50.5)  # milliseconds, 1 to 100 characters
    assert slow.p95 == pytest.approx(3 * 95.05)
    assert slow.mean == pytest.approx(3 * 50.5)
    assert fast.p50 == pytest.approx(50.5)
    # After the warm-up the models take turns, ten texts each.
    blocks = [texts[first : first + 10] for first in range(0, 100, 10)]
    expected = [(name, text) for block in blocks for name in ("slow", "fast") for text in block]
    assert seen[2 * latency.WARM_UP :] == expected
