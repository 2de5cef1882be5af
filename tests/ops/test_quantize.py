"""Rounding to 8 bits beside numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from tinylm.ops.quantize import to_int8


@pytest.mark.parametrize("shape", [(7, 33), (1, 1), (3, 4, 64)])
def test_every_row_has_the_scale_of_its_largest_entry(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    x = (random.normal(size=shape) * 10 ** random.normal(size=(*shape[:-1], 1))).astype(np.float32)
    exact = x.astype(np.float64)
    rounded, scale = to_int8(x)
    assert (rounded.dtype, rounded.shape, scale.dtype) == (np.int8, shape, np.float32)
    np.testing.assert_allclose(scale, np.abs(exact).max(-1, keepdims=True) / 127, rtol=1e-6)
    assert (np.abs(rounded).max(-1) == 127).all()
    steps = exact / scale
    assert np.abs(rounded - steps).max() <= 0.5 + 1e-4
    decided = np.abs(np.abs(steps - np.floor(steps)) - 0.5) > 1e-4  # not half way between two numbers
    assert (rounded == np.rint(steps))[decided].all()


def test_rows_of_zeros_stay_zero_and_views_are_read_in_order() -> None:
    x = np.zeros((4, 5), np.float32)
    x[:, 1] = [0, 1, -2, 3]
    rounded, scale = to_int8(x.T)
    assert rounded.tolist() == [[0] * 4, [0, 42, -85, 127], *[[0] * 4] * 3]
    assert (rounded * scale)[1].tolist() == pytest.approx([0, 1, -2, 3], abs=0.5 * 3 / 127)
