"""Several processes train as one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.together import take_steps, toy_run
from tinylm.errors import UserError
from tinylm.model.config import Convolution
from tinylm.ops.packed import Batch
from tinylm.train.masking import Inputs
from tinylm.train.pretrain import pretraining_run
from tinylm.train.recipes import RECIPES
from tinylm.train.together import Together

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left."""
    folder = tmp_path_factory.mktemp("together")
    subprocess.run([*TORCHRUN, "-m", "tests.helpers.together", folder], cwd=ROOT, check=True, timeout=300)
    return folder


def close(found: dict[str, Any], expected: dict[str, Any], rtol: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if rtol > 1e-4 and name.endswith("key_value.bias"):
            continue  # softmax ignores the bias of keys, so that AdamW follows what rounding leaves
        scale = float(tensor.abs().max())
        torch.testing.assert_close(found[name], tensor, rtol=rtol, atol=rtol * scale, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_two_processes_take_the_steps_of_one(two: Path, recipe: str) -> None:
    found, other = (torch.load(two / f"{recipe}-{rank}.pt") for rank in range(2))
    first, expected = take_steps(toy_run(recipe), 1), take_steps(toy_run(recipe))
    close(found["first"]["gradients"], first["gradients"], 1e-5)
    np.testing.assert_allclose(found["all"]["losses"], expected["losses"], rtol=1e-4)
    close(found["all"]["weights"], expected["weights"], 1e-3)
    # The same in both, or they would drift apart.
    for name, weight in found["all"]["weights"].items():
        assert weight.equal(other["all"]["weights"][name]), name


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_one_process_resumes_what_two_began(two: Path, recipe: str) -> None:
    run = toy_run(recipe, checkpoint=two / f"{recipe}.checkpoint")
    assert run.state.step == 3
    close(take_steps(run)["weights"], take_steps(toy_run(recipe))["weights"], 1e-3)


def test_parts_are_the_whole() -> None:
    """Three texts `[5, 6, 7] [8, 9] [4]` for two processes; 6, 7 and 9 are masked."""
    batch = Batch(torch.tensor([5, 6, 7, 8, 9, 4]), np.array([3, 2, 1]))
    whole = Inputs(batch, torch.tensor([60, 70, 90]), torch.tensor([1, 2, 4]))
    one, other = whole.part(0, 2), whole.part(1, 2)
    assert one.batch.ids.tolist() == [5, 6, 7, 4] and one.batch.lengths.tolist() == [3, 1]
    assert (one.targets.tolist(), one.masked_positions.tolist()) == ([60, 70], [1, 2])
    assert other.batch.ids.tolist() == [8, 9] and other.batch.lengths.tolist() == [2]
    assert (other.targets.tolist(), other.masked_positions.tolist()) == ([90], [1])
    assert (one.weight, other.weight) == pytest.approx((2 / 3, 1 / 3))
    nothing = Inputs(batch, torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64))
    assert nothing.part(0, 2).weight == 0


def test_what_several_processes_cannot_train_is_refused() -> None:
    run = toy_run("paper")
    config = run.model.config.model_copy(
        update={"convolution": Convolution(layers=1, channels=2, kernel=(3, 3))}
    )
    with pytest.raises(UserError, match="no model with a `convolution`"):
        pretraining_run(None, None, config, RECIPES["paper"], seed=0, together=Together(0, 2))  # type: ignore[arg-type]
