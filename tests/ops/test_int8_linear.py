"""Linear layers that multiply in int8, beside the same products in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

from tinylm.ops import int8_linear
from tinylm.ops.int8_linear import ROWS, WIDTH, Linear


@pytest.fixture(autouse=True)
def _int8_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors without such products compute the same, only slowly."""
    monkeypatch.setattr(int8_linear, "gains_by_int8", lambda: True)


def layer(inputs: int, outputs: int) -> Linear:
    made = Linear(inputs, outputs)
    torch.nn.init.normal_(made.bias)
    return made.bfloat16()


def error(ours: Tensor, exact: Tensor) -> float:
    """Length of the difference, as a share of the length of `exact`."""
    return float((ours.detach().double() - exact.detach()).norm() / exact.detach().norm())


def exact(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().double().requires_grad_() for tensor in tensors]


def test_linear_and_its_gradients() -> None:
    torch.manual_seed(0)
    linear = layer(WIDTH, WIDTH)
    x = torch.randn(ROWS, WIDTH).bfloat16().requires_grad_()
    grad = (torch.randn(ROWS, WIDTH) * torch.rand(ROWS, 1) ** 4).bfloat16()  # rows of very different size
    ours = linear(x)
    ours.backward(grad)
    exact_x, weight, bias = exact(x, linear.weight, linear.bias)
    theirs = F.linear(exact_x, weight, bias)
    theirs.backward(grad.double())
    assert 0.003 < error(ours, theirs) < 0.02  # bf16 alone would be below
    assert error(x.grad, exact_x.grad) < 0.03
    assert error(linear.weight.grad, weight.grad) < 0.005
    assert error(linear.bias.grad, bias.grad) < 0.005


def test_gradients_are_right_on_average() -> None:
    """Entries far smaller than the largest of their row are not lost."""
    linear = layer(WIDTH, WIDTH)
    x = torch.randn(ROWS, WIDTH).bfloat16().requires_grad_()
    grad = torch.randn(ROWS, WIDTH) / 1000
    grad[:, 0] = 1.0
    with torch.no_grad():  # the large entry goes into the first column of the result, and no other
        linear.weight[0] = torch.eye(WIDTH)[0]
    grad = grad.bfloat16()
    mean, runs = torch.zeros(ROWS, WIDTH), 400
    for seed in range(runs):
        torch.manual_seed(seed)
        x.grad = None
        linear(x).backward(grad)
        mean += x.grad.float() / runs
    wanted = (grad.double() @ linear.weight.detach().double())[:, 1:]
    single = error(x.grad[:, 1:], wanted)
    assert single > 1  # what is lost in one run,
    assert error(mean[:, 1:], wanted) < 1.1 * single / runs**0.5  # the mean of many brings back


@pytest.mark.parametrize(
    "how", ["few rows", "few inputs", "few outputs", "evaluation", "fp32", "another processor"]
)
def test_elsewhere_it_is_pytorchs(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = WIDTH - 1 if how == "few inputs" else WIDTH
    outputs = WIDTH - 1 if how == "few outputs" else WIDTH
    linear, x = layer(inputs, outputs), torch.randn(ROWS, inputs).bfloat16()
    if how == "few rows":
        x = x[:-1]
    elif how == "fp32":
        linear, x = linear.float(), x.float()
    elif how == "another processor":
        monkeypatch.setattr(int8_linear, "gains_by_int8", lambda: False)
    with torch.set_grad_enabled(how != "evaluation"):
        assert torch.equal(linear(x), F.linear(x, linear.weight, linear.bias))
