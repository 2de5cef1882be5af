"""Everything that a killed run needs to resume, in one file.

Weights, optimizer state and the progress of the run are written together and the
file is renamed into place, so a checkpoint is either the old one or the new one.
No random state is stored: see `masking.py`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from tinylm.errors import UserError
from tinylm.system.files import new_file

MODEL, OPTIMIZER = "model.", "optimizer."  # prefixes of names in the file


@dataclass
class TrainState:
    """The progress of a run.

    Attributes:
        step: steps done.
        loss_sum: of the steps of the epoch under way.
        history: a record for each finished epoch.
    """

    step: int = 0
    loss_sum: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoint:
    """The checkpoint file of one run.

    Args:
        path: the file.
        identity: settings that determine the result; a checkpoint written under
            other settings is refused.
        every: seconds between two writes.
    """

    def __init__(self, path: Path, identity: dict[str, Any], every: float = 60.0) -> None:
        self.path, self.every = Path(path), every
        # Through JSON once, so that tuples compare equal to what is read back.
        self.identity = json.loads(json.dumps(identity))
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether `every` seconds have passed since the last write."""
        return time.monotonic() - self._last >= self.every

    def save(self, model: nn.Module, optimizers: list[Optimizer], state: TrainState) -> None:
        """Write the run's state."""
        tensors = {MODEL + name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        tensors |= _optimizer_tensors(model, optimizers)
        metadata = {"identity": json.dumps(self.identity), "place": json.dumps(vars(state))}
        with new_file(self.path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
        self._last = time.monotonic()

    def restore(self, model: nn.Module, optimizers: list[Optimizer]) -> TrainState:
        """Load the run's state; a fresh `TrainState` where there is no checkpoint yet.

        Raises:
            UserError: the file is damaged, or of a run with other settings.
        """
        if not self.path.exists():
            return TrainState()
        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise UserError(
                f"{self.path} is damaged ({error}); delete it to start this run again."
            ) from error
        found = json.loads(metadata["identity"])
        if found != self.identity:
            names = sorted(
                k for k in found.keys() | self.identity.keys() if found.get(k) != self.identity.get(k)
            )
            raise UserError(
                f"{self.path} belongs to a run with other settings ({', '.join(names)});"
                " give the same settings to resume, or another folder to start again."
            )
        model.load_state_dict(
            {name.removeprefix(MODEL): value for name, value in tensors.items() if name.startswith(MODEL)}
        )
        _restore_optimizers(model, optimizers, tensors)
        return TrainState(**json.loads(metadata["place"]))

    def remove(self) -> None:
        """Delete the file: the run is over and its result saved."""
        self.path.unlink(missing_ok=True)


def _optimizer_tensors(model: nn.Module, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """The optimizers' tensors under names `optimizer.PARAMETER/STATE`."""
    return {
        f"{OPTIMIZER}{name}/{key}": value
        for optimizer in optimizers
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for key, value in optimizer.state[parameter].items()
    }


def _restore_optimizers(model: nn.Module, optimizers: list[Optimizer], tensors: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    owner = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    for full_name, value in tensors.items():
        if full_name.startswith(OPTIMIZER):
            name, key = full_name.removeprefix(OPTIMIZER).rsplit("/", 1)
            parameter = parameters[name]
            owner[id(parameter)].state[parameter][key] = value.to(parameter.device)
