"""Convolutions by way of frequencies beside PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)

from tinylm.ops.fourier import FourierConvolution


@pytest.mark.parametrize(
    ("rows", "kernel"),
    [
        (16, (16, 3)),
        (49, (16, 3)),
        (64, (16, 3)),
        (65, (16, 3)),
        (143, (16, 3)),
        (70, (8, 1)),
        (30, (9, 4)),
    ],
)
def test_equals_the_direct_convolution(rows: int, kernel: tuple[int, int]) -> None:
    torch.manual_seed(0)
    image = torch.randn(2, rows, 10, 3)
    weight, bias = torch.randn(5, 3, *kernel), torch.randn(5)
    expected = F.conv2d(image.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)
    torch.testing.assert_close(FourierConvolution(weight, bias)(image), expected, rtol=1e-4, atol=3e-4)


def test_rounding_in_bf16_is_of_the_size_of_the_direct_one() -> None:
    torch.manual_seed(0)
    image = F.gelu(torch.randn(1, 60, 20, 16)).bfloat16()  # not centred, as between two layers
    weight, bias = torch.randn(16, 16, 16, 3).bfloat16(), torch.zeros(16).bfloat16()
    channels_first = image.permute(0, 3, 1, 2)
    exact = F.conv2d(channels_first.double(), weight.double()).permute(0, 2, 3, 1)
    direct = F.conv2d(channels_first, weight).permute(0, 2, 3, 1)
    errors = [(out.double() - exact).norm() for out in (FourierConvolution(weight, bias)(image), direct)]
    assert errors[0] < 3 * errors[1]
