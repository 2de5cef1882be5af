"""Our kernels in bf16 and fp32 against PyTorch's operations in fp32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from tinylm.ops import autograd, kernels
from tinylm.ops.embedding import Embedding
from tinylm.ops.kernels import raw
from tinylm.ops.packed import make_batch
from tinylm.ops.threads import parallel
from tinylm.text.store import TokenIds
from tinylm.train import adamw, optimizers
from tinylm.train.adamw import CpuAdamW
from tinylm.train.muon import Muon, orthogonalised
from tinylm.train.recipes import RECIPES

# Relative rounding error of one operation; in fp32, of a sum of some hundred numbers.
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float32: 2.0**-20}


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pair(dtype: torch.dtype, *shape: int) -> tuple[Tensor, Tensor]:
    """The same numbers as a leaf of that kind and as an fp32 one."""
    numbers = torch.randn(*shape).to(dtype)
    return numbers.clone().requires_grad_(), numbers.float().clone().requires_grad_()


def assert_near(ours: Tensor, exact: Tensor, roundings: int) -> None:
    error = (ours.float() - exact).abs().max() / exact.abs().max()
    assert error < roundings * ROUNDING[ours.dtype]


@pytest.mark.parametrize("threads", [1, 2])
def test_add_and_norm(dtype: torch.dtype, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x, exact_x = pair(dtype, 31, 64)
    residual, exact_residual = pair(dtype, 31, 64)
    norm, exact_norm = nn.LayerNorm(64).to(dtype), nn.LayerNorm(64)
    for ours, exact in zip(norm.parameters(), exact_norm.parameters(), strict=True):
        ours.data.normal_()
        exact.data.copy_(ours)
    grad = torch.randn(31, 64).to(dtype)
    y = autograd.dropout_add_norm(x, residual, norm, 0.0)
    y.backward(grad)
    expected = exact_norm(exact_x + exact_residual)
    expected.backward(grad.float())
    assert_near(y, expected, 3)
    assert_near(x.grad, exact_x.grad, 3)
    assert_near(residual.grad, exact_residual.grad, 3)
    assert_near(norm.weight.grad, exact_norm.weight.grad, 3)
    assert_near(norm.bias.grad, exact_norm.bias.grad, 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_gelu(dtype: torch.dtype, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x, exact_x = pair(dtype, 31, 67)
    grad = torch.randn(31, 67).to(dtype)
    y, expected = autograd.gelu(3 * x), F.gelu(3 * exact_x)
    y.backward(grad)
    expected.backward(grad.float())
    assert_near(y, expected, 2)
    assert_near(x.grad, exact_x.grad, 2)


def test_dropout_in_add_and_norm_drops_the_same_forward_and_backward(dtype: torch.dtype) -> None:
    """With a residual of 0, what was dropped has gradient 0, and the rest its share."""
    x = torch.ones(200, 64).to(dtype).requires_grad_()
    norm = nn.LayerNorm(64).to(dtype)
    y = autograd.dropout_add_norm(x, torch.zeros(200, 64).to(dtype), norm, 0.25)
    y.backward(torch.randn(200, 64).to(dtype))
    dropped = y < 0  # zeros lie below the mean, kept ones above
    assert torch.equal(x.grad == 0, dropped)
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 12_800) ** 0.5)


@pytest.mark.parametrize("queries", ["all tokens", "some tokens"])
def test_attention(dtype: torch.dtype, queries: str) -> None:
    rng = np.random.default_rng(0)
    texts = TokenIds.from_lists(rng.integers(5, 99, n) for n in (7, 24, 3, 23, 12, 11))
    batch, _ = make_batch(texts, range(6), 24)
    positions = torch.arange(80)
    if queries == "some tokens":  # none of the last text
        positions = torch.tensor([0, 1, 5, 23, 24, 30, 48, 60, 72])
    groups = batch.query_groups(positions)
    (query, exact_query), (kv, exact_kv) = pair(dtype, len(positions), 128), pair(dtype, 80, 256)
    grad = torch.randn(len(positions), 128).to(dtype)
    ours = autograd.attention(query, kv, groups, 2, 0.0)
    ours.backward(grad)

    # By hand: every query with every token of its own text.
    text = batch.text_of_token
    own = text[positions][:, None] == text[None]
    outputs = []
    for head in range(2):
        columns = slice(64 * head, 64 * head + 64)
        scores = exact_query[:, columns] @ exact_kv[:, :128][:, columns].T / 8
        weights = scores.masked_fill(~own, float("-inf")).softmax(-1)
        outputs.append(weights @ exact_kv[:, 128:][:, columns])
    expected = torch.cat(outputs, 1)
    expected.backward(grad.float())
    assert_near(ours, expected, 3)
    assert_near(query.grad, exact_query.grad, 5)
    assert_near(kv.grad, exact_kv.grad, 5)


def test_cross_entropy_and_its_gradient(dtype: torch.dtype) -> None:
    logits, exact = pair(dtype, 17, 1000)
    (bias, exact_bias), targets = pair(dtype, 1000), torch.randint(0, 1000, (17,))
    ours = autograd.cross_entropy(logits * 1, bias, targets)  # the logits themselves are overwritten
    theirs = F.cross_entropy(exact + exact_bias, targets)
    (3 * ours).backward()
    (3 * theirs).backward()
    assert_near(bias.grad, exact_bias.grad, 2)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert_near(logits.grad, exact.grad, 2)


@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf")])
def test_a_diverging_run_shows(dtype: torch.dtype, value: float) -> None:
    logits = torch.randn(2, 100).to(dtype)
    logits[1, 17] = value
    bias, targets = torch.zeros(100).to(dtype), torch.zeros(2, dtype=torch.int64)
    assert autograd.cross_entropy(logits.requires_grad_(), bias, targets).isnan()


def sparse_embedding(weight: Tensor) -> Embedding:
    embedding = Embedding(*weight.shape, padding_idx=0, _weight=weight.detach().clone())
    embedding.make_sparse(True)
    return embedding


def test_the_gradient_of_an_embedding_has_the_rows_that_were_read(dtype: torch.dtype) -> None:
    start, exact = pair(dtype, 50, 64)
    embedding = sparse_embedding(start)
    ids = torch.tensor([3, 7, 3, 0, 49, 3])
    grad = torch.randn(6, 64).to(dtype)
    embedding(ids).backward(grad)
    F.embedding(ids, exact, padding_idx=0).backward(grad.float())
    found = embedding.weight.grad.coalesce()
    assert found.is_sparse and found.dtype == torch.float32
    assert found.indices().tolist() == [[0, 3, 7, 49]]
    torch.testing.assert_close(found.to_dense(), exact.grad)


@pytest.mark.parametrize("decoder", [False, True], ids=["two look-ups", "look-up and tied decoder"])
def test_weights_that_are_used_twice_get_both_gradients(dtype: torch.dtype, decoder: bool) -> None:
    start, exact = pair(dtype, 50, 64)
    embedding, exact_x = sparse_embedding(start), torch.randn(4, 64)
    x = exact_x.to(dtype)
    first, second = torch.tensor([9, 7, 9]), torch.tensor([3, 7, 49, 40])
    grad = torch.randn(3, 64).to(dtype)
    factor = torch.randn(4, 50 if decoder else 64).to(dtype)
    other = F.linear(x, embedding.weight) if decoder else embedding(second)
    ((embedding(first) * grad).sum() + (other * factor).sum()).backward()
    exact_other = F.linear(x.float(), exact) if decoder else F.embedding(second, exact)
    ((F.embedding(first, exact) * grad.float()).sum() + (exact_other * factor.float()).sum()).backward()
    found = embedding.weight.grad
    assert found.is_sparse is not decoder and found.dtype == torch.float32
    tolerance = 4 * ROUNDING[dtype] if decoder else 1e-6  # a matrix product in bf16 is rounded
    torch.testing.assert_close(found.to_dense(), exact.grad, rtol=tolerance, atol=tolerance)


def test_adamw_equals_torch(dtype: torch.dtype) -> None:
    phase = RECIPES["paper"].finetune.model_copy(update={"learning_rate": 1e-2})
    start = torch.randn(40, 64)
    ours, theirs = nn.Parameter(start.to(dtype)), nn.Parameter(start.clone())
    optimizer = CpuAdamW([ours], phase, {ours: start.clone()})
    reference = torch.optim.AdamW([theirs], 1e-2, weight_decay=phase.weight_decay)
    for _ in range(6):
        ours.grad = torch.randn(40, 64).to(dtype)
        theirs.grad = ours.grad.float()
        optimizer.step()
        reference.step()
    master = optimizers.masters_of([optimizer]).get(ours, ours).data
    torch.testing.assert_close(master, theirs.data, rtol=1e-4, atol=1e-6)
    assert torch.equal(ours.data, master.to(dtype))


def test_adamw_of_rows_that_wait_equals_torch(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without a gradient are left behind, and catch up when they are read or saved."""
    monkeypatch.setattr(adamw, "TOGETHER", 7)
    phase = RECIPES["paper"].finetune.model_copy(update={"learning_rate": 1e-2})
    start = torch.randn(40, 64)
    embedding, theirs = sparse_embedding(start.to(dtype)), nn.Parameter(start.clone())
    ours = embedding.weight
    optimizer = CpuAdamW([ours], phase, {ours: start.clone()}, [embedding])
    reference = torch.optim.AdamW([theirs], 1e-2, weight_decay=phase.weight_decay)
    for step in range(40):
        rate = 1e-2 / (1 + step)
        optimizer.lr = reference.param_groups[0]["lr"] = rate
        ids = torch.randint(0, 30, (6,))  # rows from 30 on are never read
        read = embedding(ids)
        torch.testing.assert_close(read, theirs.data[ids].to(dtype), rtol=2**-7, atol=1e-6)
        grad = torch.randn(6, 64)
        ours.grad = None
        read.backward(grad.to(dtype))
        theirs.grad = torch.zeros(40, 64).index_add(0, ids, grad.to(dtype).float())
        theirs.grad[0] = 0
        optimizer.step()
        reference.step()
    assert len(optimizer.behind[ours].numbers) == 40 % 7  # steps that row 35 waits for
    master = optimizers.masters_of([optimizer]).get(ours, ours).data
    torch.testing.assert_close(master, theirs.data, rtol=1e-5, atol=1e-6)
    assert torch.equal(ours.data, master.to(dtype))
    assert not embedding._forward_pre_hooks  # nothing waits any more


@pytest.mark.parametrize("shape", [(64, 64), (128, 64), (64, 256)])
def test_muon_equals_torch(shape: tuple[int, int]) -> None:
    phase = RECIPES["fast"].pretrain
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = Muon([ours], phase, {ours: start.clone()})
    rate, decay = phase.muon_lr, phase.weight_decay
    reference = torch.optim.Muon([theirs], rate, decay)
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.04 * moved  # both iterate in bf16, in another order


def test_orthogonalised_brings_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(orthogonalised(torch.randn(3, 48, 200)))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_store_rounds_as_torch_does() -> None:
    large = torch.randn(1000) * 1e20
    numbers = torch.cat([torch.randn(1000), large, torch.tensor([0.0, -0.0, float("inf")])])
    half = numbers.bfloat16()
    out = torch.empty_like(half)
    # Dropout that drops nothing loads and stores every number.
    parallel(kernels.dropout, len(half), raw(half), raw(out), *kernels.dropout_parameters(0.0))
    assert torch.equal(out, half)
    rows = torch.empty(1, 2003)
    kernels.sum_rows(0, 0, 1, raw(half[None]), np.array([0]), np.array([0, 1]), raw(rows))
    assert torch.equal(rows[0], half.float())


@pytest.mark.parametrize("threads", [1, 2])
def test_batch_norm_and_gelu(dtype: torch.dtype, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    norm, exact_norm = nn.BatchNorm2d(5), nn.BatchNorm2d(5)
    for parameter in norm.parameters():
        parameter.data.normal_()
    exact_norm.load_state_dict(norm.state_dict())
    image = (3 * torch.randn(6, 5, 41, 9) + torch.arange(5)[:, None, None]).to(dtype)
    exact_image = image.float().requires_grad_()
    image.requires_grad_()
    grad = torch.randn(image.shape).to(dtype)
    ours, theirs = autograd.norm_gelu(image, norm), F.gelu(exact_norm(exact_image))
    ours.backward(grad)
    theirs.backward(grad.float())
    assert_near(ours, theirs, 2)  # the normed image is rounded once, GELU once
    assert_near(image.grad, exact_image.grad, 3)
    for parameter, exact in zip(norm.parameters(), exact_norm.parameters(), strict=True):
        assert_near(parameter.grad.to(dtype), exact.grad, 2)
    torch.testing.assert_close(norm.state_dict(), exact_norm.state_dict(), rtol=1e-4, atol=1e-5)
    assert norm.num_batches_tracked == 1


def test_batch_norm_without_kernels_is_pytorchs() -> None:
    image, norm = torch.randn(4, 3, 5, 2), nn.BatchNorm2d(3)
    torch.testing.assert_close(autograd.norm_gelu(image, norm), F.gelu(nn.BatchNorm2d(3)(image)))
    half = norm.bfloat16().eval()(image.bfloat16())
    torch.testing.assert_close(autograd.norm_gelu(image.bfloat16(), norm), F.gelu(half))
