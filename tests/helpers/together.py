"""A toy pre-training, by one process or, as a program that `torchrun` starts, by several.

    torchrun --nproc-per-node 2 -m tests.helpers.together FOLDER

As a program each process leaves `RECIPE-RANK.pt` there for each recipe, and the first the checkpoint
`RECIPE.checkpoint` of a run that has taken half of its steps.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinylm.ops.device import CPU
from tinylm.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from tinylm.train import loop, muon
from tinylm.train.checkpoint import Checkpoint
from tinylm.train.loop import Run
from tinylm.train.pretrain import pretraining_run
from tinylm.train.recipes import RECIPES
from tinylm.train.together import Together, joined_processes

WORDS, STEPS, HALF = 40, 6, 3


def toy_run(name: str, together: Together | None = None, checkpoint: Path | None = None) -> Run:
    """A run in fp32 without dropout, of which each third batch is a single text."""
    loop.supports_bf16 = muon.supports_bf16 = lambda device=CPU: False  # type: ignore[assignment]
    tokenizer = Tokenizer([*SPECIAL_TOKENS, *(f"w{i}" for i in range(WORDS)), *"bcdefghijklmnopqrst"])
    random = np.random.default_rng(0)
    texts = [
        " ".join(f"w{(start + i) % WORDS}" for i in range(length))
        for start, length in zip(random.integers(0, WORDS, 65), random.integers(4, 20, 65), strict=True)
    ]
    recipe = RECIPES[name]
    changes = {"epochs": 2, "batch_size": 32, "dropout": 0.0, "learning_rate": 1e-3}
    recipe = recipe.model_copy(update={"pretrain": recipe.pretrain.model_copy(update=changes)})
    _, run = pretraining_run(
        tokenizer.encode(texts, 16),
        tokenizer,
        recipe.model_config_for(len(tokenizer), layers=1, heads=1, max_tokens=16),
        recipe,
        seed=0,
        checkpoint=None if checkpoint is None else Checkpoint(checkpoint, {"recipe": name}),
        together=together,
    )
    assert run.steps_per_epoch == 3
    return run


def take_steps(run: Run, until: int = STEPS) -> dict[str, Any]:
    """Losses of all steps, gradients of the last one, and weights."""
    losses = [run.step() for _ in range(run.state.step, until)]
    gradients = {
        name: p.grad.to_dense().clone() for name, p in run.model.named_parameters() if p.grad is not None
    }
    return {"losses": losses, "gradients": gradients, "weights": run.weights()}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with joined_processes() as together:
        assert together is not None
        for name in ("fast", "paper"):
            half = toy_run(name, together, folder / f"{name}.checkpoint")
            take_steps(half, HALF)
            half.save()
            first = take_steps(toy_run(name, together), 1)
            found = {"first": first, "all": take_steps(toy_run(name, together))}
            torch.save(found, folder / f"{name}-{together.rank}.pt")
