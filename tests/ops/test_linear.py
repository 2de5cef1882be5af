"""Products of rows: against those in float64, and in how many shapes they are taken."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tinylm.ops import linear as module
from tinylm.ops.linear import MANY, ROWS, column_products, linear, row_products

IN, OUT = 24, 40
COUNTS = [ROWS + 1, 2 * ROWS, MANY, MANY + 1, 2 * MANY - 1, 2 * MANY + 3 * ROWS]


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


@pytest.mark.parametrize("rows", COUNTS)
def test_products_are_those_of_float64(rows: int) -> None:
    x, y, matrix = drawn(rows, IN), drawn(rows, OUT), drawn(IN, OUT)
    for ours, expected in (
        (row_products(x, matrix), x.double() @ matrix.double()),
        (column_products(x, y), x.double().t() @ y.double()),
    ):
        # bf16 has 8 bits; a sum of columns is rounded twice.
        torch.testing.assert_close(ours.double(), expected, rtol=2**-7, atol=2**-7 * rows**0.5)


def test_int8_is_exact() -> None:
    chance = torch.Generator().manual_seed(0)
    x, matrix = (torch.randint(-127, 128, s, generator=chance) for s in ((ROWS + 9, IN), (IN, OUT)))
    products = row_products(x.to(torch.int8), matrix.to(torch.int8))
    assert products.dtype == torch.int32 and torch.equal(products.long(), x @ matrix)


@pytest.mark.parametrize("rows", COUNTS)
@pytest.mark.parametrize("has_bias", [True, False])
def test_gradients_are_those_of_pytorch(rows: int, has_bias: bool) -> None:
    x, weight, grad = drawn(rows, IN), drawn(OUT, IN), drawn(rows, OUT)
    bias = drawn(OUT) if has_bias else None
    found = []
    for function in (linear, functional.linear):
        leaves = [each.clone().requires_grad_() for each in (x, weight, bias) if each is not None]
        out = function(*leaves)
        out.backward(grad)
        found.append([out, *(leaf.grad for leaf in leaves)])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=2**-6, atol=0.2)


def test_all_row_counts_together_take_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def multiply(x: torch.Tensor, *rest: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        seen.add(x.shape)
        return torch.matmul(x, *rest, out=out)

    monkeypatch.setattr(module.torch, "mm", multiply)
    matrix = drawn(IN, 1)
    for rows in range(ROWS + 1, 4 * MANY):
        row_products(drawn(rows, IN), matrix)
    assert len(seen) == MANY // ROWS + 2
