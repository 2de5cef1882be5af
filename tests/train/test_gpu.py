"""Training on a CUDA GPU beside the CPU: the same losses, the same predictions.

These tests need a GPU and skip without one. The arithmetic they rely on, batches in fixed
shapes, is tested without a GPU in `tests/ops/test_fixed.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tinylm.model.config import ModelConfig
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from tinylm.train.finetune import EncodedTask, finetune
from tinylm.train.pretrain import pretraining_run
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


def without_dropout(epochs: int) -> Recipe:
    """The paper's recipe with a rate for few steps; dropout's random numbers differ between devices."""
    recipe = RECIPES["paper"]
    changes = {"learning_rate": 5e-4, "dropout": 0.0, "epochs": epochs}
    phases = {name: getattr(recipe, name).model_copy(update=changes) for name in ("pretrain", "finetune")}
    return recipe.model_copy(update=phases)


def test_fifty_steps_follow_the_cpu() -> None:
    """The first steps of a shape run eagerly, the later ones as a recorded graph."""
    texts, _ = topical(STEPS * BATCH, seed=0)
    curves = []
    for device in (CPU, CUDA):
        _, run = pretraining_run(texts, TOKENIZER, CONFIG, without_dropout(1), seed=0, device=device)
        curves.append(np.array([run.step() for _ in range(STEPS)]))
    assert curves[0][-10:].mean() < curves[0][:10].mean() - 0.5  # there was something to learn
    np.testing.assert_allclose(*curves, atol=0.1, rtol=0)  # bf16 rounds differently on both


def test_finetuning_learns_and_predicts_as_on_the_cpu() -> None:
    train, labels = topical(640, seed=1)
    test, test_labels = topical(200, seed=2)
    task = EncodedTask(train, labels, test, test_labels, TOPICS)
    results = [
        finetune(task, TOKENIZER, CONFIG, without_dropout(5), seed=0, device=device) for device in (CPU, CUDA)
    ]
    assert results[0].accuracy > 0.9  # chance is 1 of 8
    assert abs(results[0].accuracy - results[1].accuracy) <= 0.03
    model = results[1].model
    assert next(model.parameters()).device == CPU  # what is returned lives on the CPU again
