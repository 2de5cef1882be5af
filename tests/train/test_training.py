"""Training as a whole: reproducible, resumable, on schedule, and able to learn."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tinylm.errors import MachineWarning, UserError
from tinylm.model.config import Convolution, ModelConfig
from tinylm.ops.device import CPU
from tinylm.ops.packed import Batch, make_batch
from tinylm.text.store import TokenIds
from tinylm.text.tasks import Task
from tinylm.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from tinylm.train.adamw import CpuAdamW
from tinylm.train.checkpoint import Checkpoint, TrainState
from tinylm.train.finetune import (
    EncodedTask,
    Finetuned,
    disagreement,
    encode_task,
    finetune,
    finetuning_run,
)
from tinylm.train.loop import Run, train
from tinylm.train.masking import Inputs
from tinylm.train.optimizer import Optimizer
from tinylm.train.optimizers import make_optimizers
from tinylm.train.pretrain import pretrain
from tinylm.train.recipes import RECIPES, PhaseConfig, Recipe, recipe_named

WORDS = 40
SHAPE = {"layers": 1, "heads": 1, "max_tokens": 16}
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer([*SPECIAL_TOKENS, *(f"w{i}" for i in range(WORDS)), *"bcdefghijklmnopqrst"])


@pytest.fixture(scope="module")
def corpus(tokenizer: Tokenizer) -> TokenIds:
    """Every word tells its neighbours: texts count upwards, starting anywhere."""
    rng = np.random.default_rng(0)
    texts = (
        " ".join(f"w{(start + i) % WORDS}" for i in range(length))
        for start, length in zip(rng.integers(0, WORDS, 70), rng.integers(4, 20, 70), strict=True)
    )
    return tokenizer.encode(list(texts), 16)


@pytest.fixture(scope="module")
def task(tokenizer: Tokenizer) -> EncodedTask:
    """Three labels, each with ten words of its own among words of all, in texts of many lengths."""
    rng = np.random.default_rng(1)

    def text(label: int) -> str:
        own = 10 * label + rng.integers(0, 10, 3)
        common = rng.integers(30, WORDS, rng.integers(0, 9))
        return " ".join(f"w{word}" for word in rng.permutation([*own, *common]))

    def texts(labels: np.ndarray) -> list[str]:
        return [text(label) for label in labels]

    train_labels, test_labels = np.repeat(np.arange(3), 30), np.repeat(np.arange(3), 20)
    raw = Task(
        name="toy",
        label_names=["a", "b", "c"],
        train_texts=texts(train_labels),
        train_labels=train_labels,
        test_texts=texts(test_labels),
        test_labels=test_labels,
        unusable={},
        notes=[],
        fingerprint="",
    )
    return encode_task(raw, tokenizer)


def scaled(name: str, **phase: Any) -> Recipe:
    """The recipe `name` with few epochs; `phase` changes settings of both phases."""
    recipe = RECIPES[name]
    phase = {"epochs": 3, "batch_size": 32, **phase}
    return recipe.model_copy(
        update={
            "pretrain": recipe.pretrain.model_copy(update=phase),
            "finetune": recipe.finetune.model_copy(update=phase),
        }
    )


@pytest.fixture(params=["paper", "fast"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return scaled(request.param)


@pytest.fixture(params=["fp32", "bf16"])
def precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train as processors with and without bf16 do, whichever this one is."""
    for module in ("loop", "muon"):
        monkeypatch.setattr(
            f"tinylm.train.{module}.supports_bf16", lambda device=CPU: request.param == "bf16"
        )


def config_for(recipe: Recipe, tokenizer: Tokenizer, **shape: Any) -> ModelConfig:
    return recipe.model_config_for(len(tokenizer), **(SHAPE | shape))


def identical(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


# Same seed, same weights


@pytest.mark.usefixtures("precision")
def test_pretraining_is_a_function_of_the_seed(
    corpus: TokenIds, tokenizer: Tokenizer, recipe: Recipe
) -> None:
    config = config_for(recipe, tokenizer)
    model, history = pretrain(corpus, tokenizer, config, recipe, seed=1)
    torch.rand(7)  # the state of the global generator must not matter
    again, history_again = pretrain(corpus, tokenizer, config, recipe, seed=1)
    other, _ = pretrain(corpus, tokenizer, config, recipe, seed=2)
    assert identical(model, again)
    assert not model.training
    assert history == history_again
    assert not identical(model, other)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert all(record.keys() == {"epoch", "loss"} for record in history)


@pytest.mark.usefixtures("precision")
def test_finetuning_is_a_function_of_the_seed(
    task: EncodedTask, corpus: TokenIds, tokenizer: Tokenizer, recipe: Recipe
) -> None:
    start, _ = pretrain(corpus, tokenizer, config_for(recipe, tokenizer), recipe, seed=1)
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    done = finetune(task, tokenizer, start, recipe, seed=1)
    torch.rand(7)
    again = finetune(task, tokenizer, start, recipe, seed=1)
    other = finetune(task, tokenizer, start, recipe, seed=2)
    assert identical(done.model, again.model)
    assert (done.test_logits == again.test_logits).all()
    assert done.history == again.history
    assert not identical(done.model, other.model)
    # Several trials start from one pre-trained model, so it must stay as it was.
    assert all(tensor.equal(before[name]) for name, tensor in start.state_dict().items())


def test_finetuning_starts_from_the_pretrained_encoder(
    task: EncodedTask, corpus: TokenIds, tokenizer: Tokenizer
) -> None:
    still = scaled("paper", learning_rate=1e-12, epochs=1)
    config = config_for(still, tokenizer)
    start, _ = pretrain(corpus, tokenizer, config, scaled("paper", learning_rate=1e-3), seed=1)
    done = finetune(task, tokenizer, start, still, seed=2)
    for name, tensor in start.encoder.state_dict().items():
        torch.testing.assert_close(done.model.encoder.state_dict()[name], tensor, atol=1e-9, rtol=0)
    without = finetune(task, tokenizer, config, still, seed=2).model.encoder.embeddings.word.weight
    assert not torch.allclose(without, start.encoder.embeddings.word.weight, atol=1e-3)


# KilledError and resumed


class KilledError(Exception):
    pass


class DyingCheckpoint(Checkpoint):
    """Writes after every step and dies before write number `writes` + 1, so between two writes."""

    def __init__(self, path: Path, identity: dict[str, Any], writes: int) -> None:
        super().__init__(path, identity, every=0)
        self.writes = writes

    def save(self, model: nn.Module, optimizers: list[Optimizer], state: TrainState) -> None:
        if self.writes == 0:
            raise KilledError
        self.writes -= 1
        super().save(model, optimizers, state)


# 70 texts are 3 steps an epoch: nothing written, within an epoch, at its end, one step before the end.
@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("writes", [0, 1, 3, 8])
def test_resumed_pretraining_equals_an_uninterrupted_one(
    corpus: TokenIds, tokenizer: Tokenizer, recipe: Recipe, tmp_path: Path, writes: int
) -> None:
    config = config_for(recipe, tokenizer)
    expected, expected_history = pretrain(corpus, tokenizer, config, recipe, seed=1)
    path, identity = tmp_path / "run" / "checkpoint", {"seed": 1, "kernel": (3, 3)}
    with pytest.raises(KilledError):
        pretrain(
            corpus, tokenizer, config, recipe, seed=1, checkpoint=DyingCheckpoint(path, identity, writes)
        )
    assert path.exists() == (writes > 0)
    model, history = pretrain(
        corpus, tokenizer, config, recipe, seed=1, checkpoint=Checkpoint(path, identity)
    )
    assert identical(model, expected)
    assert history == expected_history


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("convolution", [None, Convolution(layers=1, channels=2)])
def test_finetuning_killed_twice_equals_an_uninterrupted_one(
    task: EncodedTask,
    tokenizer: Tokenizer,
    recipe: Recipe,
    tmp_path: Path,
    convolution: Convolution | None,
) -> None:
    config = config_for(recipe, tokenizer, convolution=convolution)
    expected = finetune(task, tokenizer, config, recipe, seed=1)

    def attempt(checkpoint: Checkpoint) -> Finetuned:
        return finetune(task, tokenizer, config, recipe, seed=1, checkpoint=checkpoint)

    path = tmp_path / "checkpoint"
    for writes in (2, 3):
        with pytest.raises(KilledError):
            attempt(DyingCheckpoint(path, {}, writes))
    done = attempt(Checkpoint(path, {}))
    assert identical(done.model, expected.model)
    assert done.history == expected.history
    assert (done.test_logits == expected.test_logits).all()


def test_a_finished_checkpoint_gives_the_result_without_a_step(
    corpus: TokenIds, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = scaled("paper")
    config = config_for(recipe, tokenizer)
    checkpoint = Checkpoint(tmp_path / "checkpoint", {}, every=0)
    expected, expected_history = pretrain(corpus, tokenizer, config, recipe, seed=1, checkpoint=checkpoint)
    monkeypatch.setattr(CpuAdamW, "step", lambda self: pytest.fail("a step was done"))
    model, history = pretrain(corpus, tokenizer, config, recipe, seed=1, checkpoint=checkpoint)
    assert identical(model, expected)
    assert history == expected_history
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def written_checkpoint(folder: Path) -> tuple[Checkpoint, nn.Module, list[Optimizer]]:
    model = nn.Linear(30, 30)
    optimizers = make_optimizers(model, RECIPES["paper"].pretrain, bf16=False)
    checkpoint = Checkpoint(folder / "checkpoint", {"seed": 1, "layers": 2, "heads": 4})
    checkpoint.save(model, optimizers, TrainState(step=5))
    return checkpoint, model, optimizers


def test_a_checkpoint_of_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint, model, optimizers = written_checkpoint(tmp_path)
    other = Checkpoint(checkpoint.path, {"seed": 1, "layers": 3, "rate": 0.15, "heads": 4})
    with pytest.raises(UserError, match=r"other settings \(layers, rate\)"):
        other.restore(model, optimizers)
    assert checkpoint.restore(model, optimizers) == TrainState(step=5)


def cut(data: bytes, share: float) -> bytes:
    return data[: int(share * len(data))]


def flip(data: bytes, share: float) -> bytes:
    """One bit of the tensors is another one, which the format does not notice."""
    place = len(data) - 1 - int(share * 1000)
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, damage: Callable[[bytes, float], bytes], share: float
) -> None:
    checkpoint, model, optimizers = written_checkpoint(tmp_path)
    before = [weight.clone() for weight in model.parameters()]
    torch.nn.init.ones_(model.weight)
    checkpoint.save(model, optimizers, TrainState(step=6))
    assert checkpoint.restore(model, optimizers) == TrainState(step=6)
    for state, sentence in ((TrainState(step=5), "resumes from the"), (TrainState(), "starts again")):
        path = checkpoint.path if checkpoint.path.exists() else checkpoint.previous
        path.write_bytes(damage(path.read_bytes(), share))
        with pytest.warns(MachineWarning, match=f"{path} is damaged .*, so the run {sentence}"):
            assert checkpoint.restore(model, optimizers) == state
        assert all(map(torch.equal, before, model.parameters()))
    assert not list(tmp_path.iterdir())


def test_a_kill_between_the_two_renames_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoint, model, optimizers = written_checkpoint(tmp_path)
    checkpoint.save(model, optimizers, TrainState(step=6))
    checkpoint.path.unlink()
    assert checkpoint.restore(model, optimizers) == TrainState(step=5)


def test_a_failing_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, model, optimizers = written_checkpoint(tmp_path)

    def half_written(tensors: State, path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("tinylm.train.checkpoint.save_file", half_written)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(model, optimizers, TrainState(step=6))
    assert checkpoint.restore(model, optimizers) == TrainState(step=5)


# Schedule and numbers


def nothing(epoch: int = 0, step: int = 0) -> Inputs:
    """For a loss that depends on no inputs."""
    return Inputs(Batch(torch.zeros(0, dtype=torch.int64), np.zeros(0, np.int64)), torch.zeros(0))


def learning_rates(phase: PhaseConfig, steps_per_epoch: int, folder: Path) -> list[float]:
    """The learning rate of every step; their sum is how far Adam moves a weight of gradient 1."""
    rates = []

    class Recorder(Checkpoint):
        def save(self, model: nn.Module, optimizers: list[Optimizer], state: TrainState) -> None:
            rates.append(optimizers[0].lr)

    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    phase = phase.model_copy(update={"weight_decay": 0.0})
    recorder = Recorder(folder / "checkpoint", {}, every=0)
    train(Run(model, phase, steps_per_epoch, nothing, lambda _: model.weight.sum(), 1, recorder), "test")
    assert model.weight.item() == pytest.approx(-sum(rates), rel=1e-4)
    return rates


@pytest.mark.usefixtures("precision")
def test_the_papers_learning_rate_falls_after_each_epoch(tmp_path: Path) -> None:
    expected = [5.5e-5 * (1 - epoch / 50) for epoch in range(50) for _ in range(3)]
    np.testing.assert_allclose(learning_rates(RECIPES["paper"].pretrain, 3, tmp_path), expected)


@pytest.mark.usefixtures("precision")
def test_a_warm_up_rises_evenly_and_then_falls_to_zero(tmp_path: Path) -> None:
    phase = PhaseConfig(
        epochs=4, batch_size=1, learning_rate=0.1, weight_decay=0, warmup_ratio=0.2, lr_decay="step"
    )
    # 20 steps: 4 of warm-up at 1/5 ... 4/5, the top, and evenly down, reaching zero after the last.
    shares = [1 / 5, 2 / 5, 3 / 5, 4 / 5, *(left / 16 for left in range(16, 0, -1))]
    np.testing.assert_allclose(learning_rates(phase, 5, tmp_path), 0.1 * np.array(shares))


@pytest.mark.parametrize("phase", [RECIPES["fast"].pretrain, RECIPES["fast"].finetune])
@pytest.mark.parametrize("steps_per_epoch", [7, 100])
def test_the_fast_recipe_warms_up_and_falls_to_zero(phase: PhaseConfig, steps_per_epoch: int) -> None:
    shares = [
        phase.schedule(epoch, step, steps_per_epoch)
        for epoch in range(phase.epochs)
        for step in range(steps_per_epoch)
    ]
    top = int(np.argmax(shares))
    assert 0 < min(shares) <= max(shares) <= 1
    assert top == math.ceil(phase.warmup_ratio * len(shares))
    assert (np.diff(shares[: top + 1]) > 0).all()
    falling = np.array(shares[top:])
    slopes = np.diff([*falling, 0.0])
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-6)


def test_the_paper_recipe_is_the_papers() -> None:
    """Section 3 and the appendix, number by number."""
    paper = recipe_named("paper")
    assert paper.pretrain.model_dump() == {
        "epochs": 50,
        "batch_size": 32,
        "learning_rate": 5.5e-5,
        "matrix_learning_rate": None,
        "weight_decay": 1e-2,
        "warm_up": 0.0,
        "decay_each": "epoch",
        "dropout": 0.1,
    }
    assert paper.finetune.epochs >= 50
    assert (paper.finetune.batch_size, paper.finetune.lr_decay) == (32, "epoch")
    assert (paper.max_tokens, paper.mask_rate, paper.vocabulary) == (128, 0.15, None)
    assert not paper.frequency_bias
    config = paper.model_config_for(30_522)
    assert (config.layers, config.heads, config.width, config.max_tokens) == (6, 12, 768, 128)
    assert (config.dropout, config.init_std, config.convolution) == (0.1, 0.02, None)
    with pytest.raises(UserError, match="'papr' is unknown.*paper, fast"):
        recipe_named("papr")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("paper", "ae46c5a38ccf7ee4"),
        ("sketch", "3b25a5ca2c89cb07"),
    ],
)
def test_recipes_are_stored_under_the_names_they_had_first(name: str, key: str) -> None:
    """Keys of stored results hash the dump: computed before three fields were renamed in Python."""
    recipe = RECIPES[name]
    stored = json.dumps(recipe.model_dump(mode="json"))
    assert hashlib.sha256(stored.encode()).hexdigest()[:16] == key
    assert Recipe.model_validate(json.loads(stored)) == Recipe.model_validate_json(stored) == recipe
    assert PhaseConfig.model_validate(json.loads(stored)["pretrain"]).muon_lr == recipe.pretrain.muon_lr


@pytest.mark.usefixtures("precision")
def test_a_trained_model_learns_from_any_optimizer(
    tokenizer: Tokenizer, corpus: TokenIds, task: EncodedTask
) -> None:
    """Our optimizers take gradients of words row by row, which those of PyTorch would miss."""
    recipe = scaled("paper")
    start, _ = pretrain(corpus, tokenizer, config_for(recipe, tokenizer), recipe, seed=1)
    model = finetune(task, tokenizer, start, recipe, seed=1).model.train()
    batch, _ = make_batch(task.train, [0, 1], 16)
    words = model.encoder.embeddings.word.weight
    for trained, loss in ((start, start(batch, batch.first).sum()), (model, model(batch).sum())):
        loss.backward()
        assert trained.encoder.embeddings.word.weight.grad.any()
    before = words.detach().clone()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert (words != before).any()


@pytest.mark.usefixtures("precision")
def test_running_averages_are_exact_in_either_precision() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1))
    image = torch.ones(1, 1, 2, 2)
    phase = PhaseConfig(epochs=1, batch_size=1, learning_rate=1e-3, weight_decay=0)
    train(Run(model, phase, 90, nothing, lambda _: model(image).float().sum(), seed=1), "test")
    # A mean with 8 bits would get stuck on its way from 0 to 1.
    assert model[0].running_mean.item() == pytest.approx(1 - 0.9**90, abs=1e-5)


def test_history_holds_the_mean_loss_of_each_epoch() -> None:
    model = nn.Linear(1, 1)
    losses = np.random.default_rng(0).random((3, 4))
    figures = iter([0.1, 0.2, 0.3])

    def inputs_of(epoch: int, step: int) -> Inputs:
        return Inputs(nothing().batch, torch.tensor(losses[epoch, step]))

    def loss_of(inputs: Inputs) -> Tensor:
        assert model.training
        return 0 * model.weight.sum().float() + inputs.targets

    def after_epoch() -> dict[str, float]:
        assert not model.training
        return {"figure": next(figures)}

    phase = PhaseConfig(epochs=3, batch_size=1, learning_rate=1, weight_decay=0)
    history = train(Run(model, phase, 4, inputs_of, loss_of, seed=1), "test", after_epoch)
    assert not model.training
    assert [(record["epoch"], record["figure"]) for record in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    np.testing.assert_allclose([record["loss"] for record in history], losses.mean(1), rtol=1e-6)


# Learning


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("name", ["paper", "fast"])
def test_pretraining_learns_more_than_token_frequencies(tokenizer: Tokenizer, name: str) -> None:
    rng = np.random.default_rng(2)
    starts = rng.integers(0, WORDS, 320)
    corpus = tokenizer.encode([" ".join(f"w{(s + i) % WORDS}" for i in range(14)) for s in starts], 16)
    recipe = scaled(name, epochs=25, learning_rate=3e-3, dropout=0.0)
    _, history = pretrain(corpus, tokenizer, config_for(recipe, tokenizer), recipe, seed=1)
    assert history[-1]["loss"] < history[0]["loss"]
    # The words are equally frequent: knowing that alone costs log(40) = 3.69.
    assert history[-1]["loss"] < 0.6 * math.log(WORDS)


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("name", ["paper", "fast"])
def test_finetuning_learns_a_separable_task(task: EncodedTask, tokenizer: Tokenizer, name: str) -> None:
    recipe = scaled(name, epochs=40, learning_rate=1e-3)
    done = finetune(task, tokenizer, config_for(recipe, tokenizer), recipe, seed=1)
    assert done.accuracy >= 0.95
    assert done.accuracy == np.mean(done.test_logits.argmax(1) == task.test_labels)
    assert done.test_logits.shape == (60, 3)
    assert not done.model.training


@pytest.mark.parametrize("multi_label", [False, True])
def test_disagreement_is_the_mean_of_both_divergences(multi_label: bool) -> None:
    first, second = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    if multi_label:  # a label is one of two cases, with the probabilities p and 1 - p
        p, q = (torch.stack([x.sigmoid(), 1 - x.sigmoid()], -1) for x in (first, second))
    else:
        p, q = first.softmax(1), second.softmax(1)
    kl = torch.nn.functional.kl_div
    expected = (kl(q.log(), p, reduction="sum") + kl(p.log(), q, reduction="sum")) / (2 * 5)
    assert disagreement(first, second, multi_label=multi_label).item() == pytest.approx(expected.item(), 1e-5)


def test_consistency_compares_two_passes_of_each_text_and_rises(
    task: EncodedTask, tokenizer: Tokenizer
) -> None:
    recipe = scaled("fast", consistency=3.0, epochs=2)
    _, run = finetuning_run(task, tokenizer, config_for(recipe, tokenizer), recipe, seed=1)
    logits = []
    run.model.register_forward_hook(lambda _module, _inputs, output: logits.append(output.detach().float()))
    for step in range(5):
        loss = run.step()
        first, second = logits[-1][0::2], logits[-1][1::2]
        # The rows of this step's batch, in the order of the packed texts.
        rows = run.inputs_of(*divmod(step, run.steps_per_epoch)).targets
        assert (rows[0::2] == rows[1::2]).all()
        assert not torch.equal(first, second)  # dropout
        weight = 3.0 * min(1.0, 2 * step / (2 * run.steps_per_epoch))
        expected = torch.nn.functional.cross_entropy(logits[-1], rows)
        expected = expected + weight * disagreement(first, second, multi_label=False)
        assert loss == pytest.approx(expected.item(), 1e-4)


def test_finetuning_reports_the_final_and_the_best_epoch(task: EncodedTask, tokenizer: Tokenizer) -> None:
    recipe = scaled("paper", learning_rate=2e-3, epochs=6)
    runs = [finetune(task, tokenizer, config_for(recipe, tokenizer), recipe, seed=seed) for seed in range(3)]
    for done in runs:
        assert [record["epoch"] for record in done.history] == [1, 2, 3, 4, 5, 6]
        assert all(record.keys() == {"epoch", "loss", "test_accuracy"} for record in done.history)
        epochs = [record["test_accuracy"] for record in done.history]
        # The last epoch is measured on rounded weights where training computes in bf16.
        assert abs(done.accuracy - epochs[-1]) < 0.05
        assert done.best_epoch_accuracy == max(done.accuracy, *epochs)


@pytest.mark.usefixtures("precision")
def test_the_output_bias_starts_at_the_log_frequencies(tokenizer: Tokenizer) -> None:
    recipe = scaled("paper", learning_rate=1e-12, epochs=1).model_copy(update={"frequency_bias": True})
    corpus = tokenizer.encode(["w3 w3 w3 w8", "w3 w9"], 16)
    model, _ = pretrain(corpus, tokenizer, config_for(recipe, tokenizer), recipe, seed=1)
    # Half a count for each token; [CLS] and [SEP] do not count, since they are never masked.
    expected = np.full(len(tokenizer), 0.5)
    for word, count in (("w3", 4), ("w8", 1), ("w9", 1)):
        expected[tokenizer.vocab.index(word)] += count
    expected = np.log(expected / (6 + 0.5 * len(tokenizer)))
    np.testing.assert_allclose(model.bias.detach().numpy(), expected, atol=1e-6)


# Mistakes of the user


@pytest.mark.usefixtures("precision")
def test_a_diverging_learning_rate_is_named(corpus: TokenIds, tokenizer: Tokenizer) -> None:
    recipe = scaled("paper", learning_rate=1e30)
    with pytest.raises(UserError, match=r"not a number after step \d.*learning rate 1e\+30 is too high"):
        pretrain(corpus, tokenizer, config_for(recipe, tokenizer), recipe, seed=1)


def test_no_paragraph_and_another_vocabulary_are_refused(
    corpus: TokenIds, task: EncodedTask, tokenizer: Tokenizer
) -> None:
    recipe = scaled("paper")
    config = config_for(recipe, tokenizer)
    with pytest.raises(UserError, match="W_S has no paragraphs"):
        pretrain(TokenIds.from_lists([]), tokenizer, config, recipe, seed=1)
    other = config.model_copy(update={"vocab_size": 1234})
    with pytest.raises(UserError, match=f"1,234 tokens, the tokenizer has {len(tokenizer)}"):
        pretrain(corpus, tokenizer, other, recipe, seed=1)
    with pytest.raises(UserError, match="1,234 tokens"):
        finetune(task, tokenizer, other, recipe, seed=1)


@pytest.mark.usefixtures("precision")
def test_texts_so_short_that_nothing_is_masked_do_no_harm(tokenizer: Tokenizer) -> None:
    recipe = scaled("paper")
    corpus = tokenizer.encode(["", "", ""], 16)
    model, history = pretrain(corpus, tokenizer, config_for(recipe, tokenizer), recipe, seed=1)
    assert [record["loss"] for record in history] == [0, 0, 0]
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


TRAINING = """
import sys
import torch
from tinylm.model.config import ModelConfig
from tinylm.model.heads import MaskedLanguageModel
from tinylm.train.optimizers import make_optimizers
from tinylm.train.recipes import RECIPES

model = MaskedLanguageModel(ModelConfig(vocab_size=10, layers=1, heads=1))
for optimizer in make_optimizers(model, RECIPES["fast"].pretrain, bf16=False):
    for p in optimizer.parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
assert len(sys.modules) > 500 and "torch._dynamo" not in sys.modules
"""


def test_training_does_not_import_pytorchs_compiler() -> None:
    # It takes seconds, in every process of a fit.
    subprocess.run([sys.executable, "-c", TRAINING], check=True)
