"""Rounding to 8 bits beside numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tinylm.ops.quantize import round_weights, to_int8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 33), (1, 1), (3, 4, 64)])
def test_every_row_has_the_scale_of_its_largest_entry(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (torch.randn(shape) * 10 ** torch.randn(*shape[:-1], 1)).to(dtype)
    exact = x.double().numpy()
    rounded, scale = (tensor.numpy() for tensor in to_int8(x))
    assert (rounded.dtype, rounded.shape, scale.shape) == (np.int8, shape, (*shape[:-1], 1))
    np.testing.assert_allclose(scale, np.abs(exact).max(-1, keepdims=True) / 127, rtol=1e-6)
    assert (np.abs(rounded).max(-1) == 127).all()
    steps = exact / scale
    assert np.abs(rounded - steps).max() <= 0.5 + 1e-4
    decided = np.abs(np.abs(steps - np.floor(steps)) - 0.5) > 1e-4  # not half way between two numbers
    assert (rounded == np.rint(steps))[decided].all()


def test_rows_of_zeros_stay_zero_and_views_are_read_in_order() -> None:
    x = torch.zeros(4, 5)
    x[:, 1] = torch.tensor([0.0, 1.0, -2.0, 3.0])
    rounded, scale = to_int8(x.t())
    assert rounded.tolist() == [[0] * 4, [0, 42, -85, 127], *[[0] * 4] * 3]
    assert (rounded * scale)[1].tolist() == pytest.approx([0, 1, -2, 3], abs=0.5 * 3 / 127)


def test_a_model_gets_the_values_that_are_stored() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    round_weights(model)
    rounded, scale = to_int8(before["weight"])
    assert torch.equal(model.weight, rounded * scale)
    assert not torch.equal(model.weight, before["weight"])
    assert torch.equal(model.bias, before["bias"])
