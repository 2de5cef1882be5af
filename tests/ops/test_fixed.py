"""Batches of fixed shape give what packed ones give, and a step on them runs on a device alone."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tinylm.model.config import Convolution, ModelConfig
from tinylm.model.heads import MaskedLanguageModel, SequenceClassifier
from tinylm.ops import autograd
from tinylm.ops.fixed import Shape
from tinylm.ops.packed import make_batch
from tinylm.text.store import TokenIds
from tinylm.train import cuda_graphs
from tinylm.train.adamw import CpuAdamW, GpuAdamW
from tinylm.train.cuda_graphs import Graphs
from tinylm.train.masking import Inputs, StaticInputs
from tinylm.train.muon import Muon
from tinylm.train.optimizers import make_optimizers, masters_of, restore_masters, set_lr_factor
from tinylm.train.recipes import RECIPES

CONFIGS = {
    "one block": ModelConfig(vocab_size=300, layers=1, heads=2, max_tokens=80, dropout=0.0),
    "mean": ModelConfig(vocab_size=300, layers=2, heads=1, max_tokens=80, dropout=0.0, pooling="mean"),
    "attended": ModelConfig(
        vocab_size=300, layers=2, heads=1, max_tokens=80, dropout=0.0, pooling="attended"
    ),
    "three blocks": ModelConfig(vocab_size=300, layers=3, heads=1, max_tokens=80, dropout=0.0),
    "convolutions": ModelConfig(
        vocab_size=300,
        layers=2,
        heads=1,
        max_tokens=80,
        dropout=0.0,
        convolution=Convolution(layers=2, channels=3),
    ),
}


@pytest.fixture(autouse=True)
def _no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where all operations are PyTorch's."""
    monkeypatch.setattr(autograd, "has_kernels", lambda x: False)


def inputs_of(lengths: list[int], masked: int | None, seed: int = 0) -> Inputs:
    """Random texts of these lengths; `masked` of their tokens as targets, or a label for each text."""
    random = np.random.default_rng(seed)
    texts = [random.integers(5, 300, length).tolist() for length in lengths]
    batch, rows = make_batch(TokenIds.from_lists(texts), np.arange(len(texts)), 80)
    if masked is None:
        return Inputs(batch, torch.from_numpy(rows % 4))
    positions = np.sort(random.permutation(len(batch.ids))[:masked])
    return Inputs(batch, torch.from_numpy(random.integers(5, 300, masked)), torch.from_numpy(positions))


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# A text of one token, one cut to the longest possible, as many tokens as a multiple of ROWS, and
# as many masked ones as a multiple of MASKED.
LENGTHS = {
    "mixed": ([17, 3, 80, 1, 100, 41], 20),
    "multiples": ([64, 64], 128),
    "one": ([5], 1),
}


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_masked_language_modelling_is_the_same_in_fixed_shapes(config: ModelConfig, name: str) -> None:
    inputs = inputs_of(*LENGTHS[name])
    static = inputs.static(config.max_tokens)
    assert static.batch.shape.rows % 128 == static.batch.shape.masked % 128 == 0
    torch.manual_seed(0)
    model = MaskedLanguageModel(config).train()
    found = model(static.batch, static.masked_positions, static.targets)
    expected = model(inputs.batch, inputs.masked_positions, inputs.targets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    compare(gradients(model, found), gradients(model, expected))


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_classification_is_the_same_in_fixed_shapes(config: ModelConfig, name: str) -> None:
    inputs = inputs_of(LENGTHS[name][0], None)
    static = inputs.static(config.max_tokens)
    torch.manual_seed(0)
    model = SequenceClassifier(config, 4).train()
    found, expected = model(static.batch), model(inputs.batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    losses = [nn.functional.cross_entropy(logits, inputs.targets) for logits in (found, expected)]
    compare(*(gradients(model, loss) for loss in losses))


def compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        # A bias before BatchNorm has a gradient of nothing but rounding.
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=2e-5, msg=name)


def test_a_step_that_hides_nothing_changes_nothing() -> None:
    inputs = inputs_of([6, 4], 0).static(80)
    model = MaskedLanguageModel(CONFIGS["one block"]).train()
    loss = model(inputs.batch, inputs.masked_positions, inputs.targets)
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in gradients(model, loss).values())


def test_shapes_are_few() -> None:
    random = np.random.default_rng(1)
    shapes = set()
    for seed in range(200):
        lengths = random.integers(2, 81, 32).tolist()
        shapes.add(inputs_of(lengths, int(0.15 * sum(lengths)), seed).static(80).shape)
    assert len(shapes) < 30


# Nothing here has a GPU. Tensors on `meta` have a device and a shape but no values: an operation
# that reads one on the host raises, and so does one that mixes devices.


@pytest.mark.parametrize("recipe", ["paper", "fast"])
@pytest.mark.parametrize("masked", [30, None], ids=["pretrain", "finetune"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_step_stays_on_its_device(config: ModelConfig, masked: int | None, recipe: str) -> None:
    config = config.model_copy(update={"dropout": 0.1})
    model = (MaskedLanguageModel(config) if masked else SequenceClassifier(config, 4)).to("meta").train()
    optimizers = make_optimizers(model, RECIPES[recipe].pretrain, bf16=True)
    assert isinstance(optimizers[0], GpuAdamW)
    inputs = inputs_of([17, 3, 80, 1, 41], masked).static(80).to(torch.device("meta"))
    set_lr_factor(optimizers, 0.5)
    if masked:
        loss = model(inputs.batch, inputs.masked_positions, inputs.targets)
    else:
        loss = nn.functional.cross_entropy(model(inputs.batch).float(), inputs.targets)
    loss.backward()
    assert loss.device.type == "meta"
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in model.parameters())
    with pytest.raises((NotImplementedError, RuntimeError)):  # that reading on the host is noticed
        loss.item()
    for optimizer in optimizers:
        if isinstance(optimizer, Muon):  # PyTorch's fused AdamW does not know `meta`
            optimizer.step()


@pytest.mark.parametrize("tensor_rate", [False, True])
def test_the_fused_step_on_masters_is_adamw(tensor_rate: bool) -> None:
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5)) for _ in range(2))
    other.load_state_dict(model.state_dict())
    phase = RECIPES["paper"].pretrain.model_copy(update={"learning_rate": 1e-2})
    masters = {p: p.detach().clone() for p in model.parameters()}
    model.to(torch.bfloat16)
    ours = GpuAdamW(list(model.parameters()), phase, masters)
    if tensor_rate:
        ours.keep_lr_on(torch.device("cpu"))
    theirs = torch.optim.AdamW(other.parameters(), 1e-2, weight_decay=phase.weight_decay)
    for step in range(5):
        set_lr_factor([ours], 1 - step / 5)
        theirs.param_groups[0]["lr"] = 1e-2 * (1 - step / 5)
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.grad = torch.randn(p.shape).bfloat16()
            q.grad = p.grad.float()
        ours.step()
        theirs.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(masters_of([ours])[p], q, rtol=1e-5, atol=1e-6)
        assert torch.equal(p, masters_of([ours])[p].bfloat16())
    restore_masters(model, [ours])
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_the_cpu_keeps_its_own_optimizer() -> None:
    model = nn.Linear(3, 3)
    (optimizer,) = make_optimizers(model, RECIPES["paper"].pretrain, bf16=True)
    assert isinstance(optimizer, CpuAdamW)


# The order of recording and repeating, with a stand-in for CUDA that repeats a step by calling it.


class Replayed:
    """Calls again what was called while it recorded."""

    def __init__(self) -> None:
        self.replay: Callable[[], object] = lambda: None


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def __init__(self, *arguments: object, **named: object) -> None:
            self.graph = arguments[0] if arguments else None

        def __enter__(self) -> None:
            return None

        def __exit__(self, *error: object) -> None:
            return None

        def wait_stream(self, other: object) -> None:
            return None

    for name in ("Stream", "stream", "graph", "current_stream", "graph_pool_handle"):
        monkeypatch.setattr(cuda_graphs.torch.cuda, name, Nothing)
    monkeypatch.setattr(cuda_graphs.torch.cuda, "CUDAGraph", Replayed)
    monkeypatch.setattr(StaticInputs, "pinned", lambda self: self)


@pytest.mark.usefixtures("no_cuda")
def test_a_step_is_recorded_once_for_each_shape_and_sees_the_inputs_of_its_own_step() -> None:
    lengths = [[9, 5], [200 // 3, 70], [30, 4], [12, 2], [60, 75], [61, 74]]
    batches = [inputs_of(each, 3, seed).static(80) for seed, each in enumerate(lengths)]
    sums = [int(batch.batch.ids.sum()) for batch in batches]
    seen: list[tuple[str, int]] = []

    class Recorder(Graphs):
        def _record(self, inputs: StaticInputs) -> cuda_graphs.Recorded:
            copied, graph = copy.deepcopy(inputs), Replayed()
            graph.replay = lambda: seen.append(("replay", int(copied.batch.ids.sum())))  # type: ignore[assignment]
            seen.append(("record", 0))
            return cuda_graphs.Recorded(graph, copied, torch.zeros(()))  # type: ignore[arg-type]

    def learn(inputs: StaticInputs) -> Tensor:
        seen.append(("first", int(inputs.batch.ids.sum())))
        return torch.zeros(())

    asked: list[int] = []

    def prepare(number: int) -> StaticInputs:
        asked.append(number)
        return batches[number % len(batches)]

    steps = Recorder(learn, torch.device("cpu"))
    for number in range(6):
        steps.step(number, prepare)
    small, large = Shape(2, 128, 32, 128), Shape(2, 256, 80, 128)
    assert [batch.shape for batch in batches] == [small, large, small, small, large, large]
    assert seen == [
        ("first", sums[0]),
        ("first", sums[1]),
        ("record", 0),
        ("replay", sums[2]),
        ("replay", sums[3]),
        ("record", 0),
        ("replay", sums[4]),
        ("replay", sums[5]),
    ]
    assert asked == list(range(7))  # each once, one ahead
    steps.step(2, prepare)  # as after a run was put back
    assert seen[-1] == ("replay", sums[2])


@pytest.mark.usefixtures("no_cuda")
def test_no_garbage_is_collected_while_a_step_is_recorded() -> None:
    """An earlier run's graphs, which only the collector finds, would spoil the recording."""
    collected: list[str] = []
    phase = "before"

    class Earlier:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            collected.append(phase)

    def learn(inputs: StaticInputs) -> Tensor:
        nonlocal phase
        if collected:  # by what comes before the recording
            phase = "recording"
            [Earlier() for _ in range(5000)]  # many times what makes the collector begin
            phase = "after"
        return torch.zeros(())

    steps = Graphs(learn, torch.device("cpu"))
    batch = inputs_of([9, 5], 3).static(80)
    gc.collect()
    Earlier()
    gc.disable()
    steps.step(0, lambda _: batch)
    gc.enable()
    steps.step(1, lambda _: batch)
    assert phase == "after" and gc.isenabled()
    gc.collect()
    assert collected == ["before"] + ["after"] * 5000
