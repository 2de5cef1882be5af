"""Training on a CUDA GPU beside the CPU: the same losses, the same predictions.

These tests need a GPU and skip without one. The arithmetic they rely on, batches in fixed
shapes, is tested without a GPU in `tests/ops/test_fixed.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tinylm.model.config import Convolution, ModelConfig
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from tinylm.train.checkpoint import Checkpoint
from tinylm.train.cuda_graphs import Graphs
from tinylm.train.finetune import EncodedTask, finetune
from tinylm.train.loop import Run
from tinylm.train.pretrain import pretrain, pretraining_run
from tinylm.train.recipes import RECIPES, Recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
STEPS, BATCH, TOPICS, WORDS = 50, 32, 8, 8
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TOKENIZER = Tokenizer([*SPECIAL_TOKENS, *(f"word{i}" for i in range(TOPICS * WORDS))])
CONFIG = ModelConfig(vocab_size=len(TOKENIZER), layers=2, heads=4, max_tokens=24, dropout=0.0)


def topical(count: int, seed: int) -> tuple[TokenIds, np.ndarray]:
    """Texts of 6 to 22 words, all from one of 8 topics, and the number of the topic."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(TOPICS, size=count)
    lists = [
        [
            TOKENIZER.cls_id,
            *5 + WORDS * topic + rng.integers(0, WORDS, rng.integers(6, 23)),
            TOKENIZER.sep_id,
        ]
        for topic in topics
    ]
    return TokenIds.from_lists(lists), topics


def without_dropout(name: str, epochs: int) -> Recipe:
    """A recipe for few steps; dropout's random numbers differ between devices."""
    recipe = RECIPES[name]
    changes: dict[str, object] = {"dropout": 0.0, "epochs": epochs, "batch_size": BATCH}
    if name == "paper":
        changes["learning_rate"] = 5e-4
    phases = {name: getattr(recipe, name).model_copy(update=changes) for name in ("pretrain", "finetune")}
    # A GPU predicts over the whole vocabulary whatever the recipe says.
    return recipe.model_copy(update=phases | {"sampled_tokens": None})


FRONT = Convolution(layers=2, channels=8)


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        ("paper", {}),
        ("fast", {}),  # Muon
        ("paper", {"convolution": FRONT}),
    ],
    ids=["paper", "fast", "convolution"],
)
def test_fifty_steps_follow_the_cpu(recipe: str, shape: dict[str, object]) -> None:
    """The first steps of a shape run eagerly, the later ones as a recorded graph."""
    texts, _ = topical(STEPS * BATCH, seed=0)
    config = ModelConfig.model_validate(CONFIG.model_dump() | shape)
    curves = []
    for device in (CPU, CUDA):
        made = without_dropout(recipe, 1)
        _, run = pretraining_run(texts, TOKENIZER, config, made, seed=0, device=device)
        curves.append(np.array([run.step() for _ in range(STEPS)]))
    print(*curves, sep="\n")
    assert curves[0][-10:].mean() < curves[0][:10].mean() - 0.5  # there was something to learn
    np.testing.assert_allclose(*curves, atol=0.1, rtol=0)  # bf16 rounds differently on both


def test_a_repeated_step_is_the_step_with_its_own_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout is drawn again in each repetition of a graph, and as the step's seed says."""
    texts, _ = topical(STEPS * BATCH, seed=0)
    recipe = RECIPES["paper"].with_epochs(pretrain=1)
    curves = []
    for repeat in (True, False):
        if not repeat:
            monkeypatch.setattr(Graphs, "_take", lambda self, inputs: self.learn(inputs.to(self.device)))
        _, run = pretraining_run(texts, TOKENIZER, CONFIG, recipe, seed=0, device=CUDA)
        curves.append(np.array([run.step() for _ in range(STEPS)]))
        assert run.graphs is not None
        assert any(run.graphs.recorded.values()) == repeat
    print(*curves, sep="\n")
    # Another seed of dropout changes these losses by about 0.03.
    np.testing.assert_allclose(*curves, atol=5e-3, rtol=0)


def test_losses_read_together_are_those_of_the_steps() -> None:
    texts, _ = topical(STEPS * BATCH, seed=0)
    recipe = without_dropout("paper", 2)
    _, history = pretrain(texts, TOKENIZER, CONFIG, recipe, seed=0, device=CUDA)
    _, run = pretraining_run(texts, TOKENIZER, CONFIG, recipe, seed=0, device=CUDA)
    losses = np.array([run.step() for _ in range(2 * STEPS)])
    means = losses.reshape(2, STEPS).mean(1)
    np.testing.assert_allclose([epoch["loss"] for epoch in history], means, atol=2e-2)


def test_a_killed_run_resumes(tmp_path: Path) -> None:
    texts, _ = topical(STEPS * BATCH, seed=0)
    recipe = RECIPES["paper"].with_epochs(pretrain=1)

    def run_with(checkpoint: Checkpoint) -> Run:
        _, run = pretraining_run(texts, TOKENIZER, CONFIG, recipe, seed=0, checkpoint=checkpoint, device=CUDA)
        return run

    first = run_with(Checkpoint(tmp_path / "state", {}))
    for _ in range(30):
        first.step()
    first.save()
    again = run_with(Checkpoint(tmp_path / "state", {}))
    assert again.state.step == 30
    curves = [[run.step() for _ in range(STEPS - 30)] for run in (first, again)]
    np.testing.assert_allclose(*curves, atol=5e-3, rtol=0)


def test_finetuning_learns_and_predicts_as_on_the_cpu() -> None:
    train, labels = topical(640, seed=1)
    test, test_labels = topical(200, seed=2)
    task = EncodedTask(train, labels, test, test_labels, TOPICS)
    results = [
        finetune(task, TOKENIZER, CONFIG, without_dropout("paper", 5), seed=0, device=device)
        for device in (CPU, CUDA)
    ]
    assert results[0].accuracy > 0.9  # chance is 1 of 8
    assert abs(results[0].accuracy - results[1].accuracy) <= 0.03
    model = results[1].model
    assert next(model.parameters()).device == CPU  # what is returned lives on the CPU again
