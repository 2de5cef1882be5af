"""Everything that a killed run needs to resume, in one file.

Weights, optimizer state and the progress of the run are written together, with a checksum, and the
file is renamed into place, so a checkpoint is either the old one or the new one. The one before it
is kept too, in case the disk damages the new one. No random state is stored: see `masking.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tinylm.errors import MachineWarning, UserError
from tinylm.system.files import new_file
from tinylm.train.optimizer import Optimizer

MODEL, OPTIMIZER = "model.", "optimizer."  # prefixes of names in the file
SECONDS = "TINYLM_CHECKPOINT_SECONDS"  # environment variable: seconds between two checkpoints


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
    """The checkpoint of one run: the last state that was written, and the one before it.

    Args:
        path: the file; `path.previous` holds the state before it.
        identity: settings that determine the result; a checkpoint written under
            other settings is refused.
        every: seconds between two writes; by default 60, or as the environment variable says.
    """

    def __init__(self, path: Path, identity: dict[str, Any], every: float | None = None) -> None:
        self.path = Path(path)
        self.previous = self.path.with_name(self.path.name + ".previous")
        self.every = float(os.environ.get(SECONDS, 60)) if every is None else every
        # Through JSON once, so that tuples compare equal to what is read back.
        self.identity = json.loads(json.dumps(identity))
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether `every` seconds have passed since the last write."""
        return time.monotonic() - self._last >= self.every

    def save(self, model: nn.Module, optimizers: list[Optimizer], state: TrainState) -> None:
        """Write the run's state."""
        tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
        tensors |= _optimizer_tensors(model, optimizers)
        facts = {"identity": self.identity, "state": vars(state)}
        write_tensors(self.path, tensors, facts, self.previous)
        self._last = time.monotonic()

    def restore(self, model: nn.Module, optimizers: list[Optimizer]) -> TrainState:
        """Load the run's state; a fresh `TrainState` where there is no checkpoint yet.

        A damaged checkpoint is deleted, with a warning, and the one before it is loaded.

        Raises:
            UserError: the checkpoint is of a run with other settings.
        """
        for path, instead in (
            (self.path, "the run resumes from the checkpoint before it"),
            (self.previous, "the run starts again"),
        ):
            if not path.exists():
                continue
            try:
                tensors, facts = read_tensors(path)
            except DamagedError as error:
                path.unlink()
                if path == self.path and not self.previous.exists():
                    instead = "the run starts again"
                warnings.warn(f"{path} is damaged ({error}), so {instead}.", MachineWarning, stacklevel=2)
                continue
            self._check(path, facts["identity"])
            weights = {
                name.removeprefix(MODEL): value for name, value in tensors.items() if name.startswith(MODEL)
            }
            model.load_state_dict(weights)
            _restore_optimizers(model, optimizers, tensors)
            return TrainState(**facts["state"])
        return TrainState()

    def _check(self, path: Path, found: dict[str, Any]) -> None:
        """Refuse a checkpoint of other settings."""
        if found != self.identity:
            names = sorted(
                k for k in found.keys() | self.identity.keys() if found.get(k) != self.identity.get(k)
            )
            raise UserError(
                f"{path} belongs to a run with other settings ({', '.join(names)});"
                " give the same settings to resume, or another folder to start again."
            )

    def remove(self) -> None:
        """Delete the files: the run is over and its result saved."""
        self.path.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)


class DamagedError(Exception):
    """A file does not hold what was written."""


def write_tensors(
    path: Path, tensors: dict[str, Tensor], facts: dict[str, Any], previous: Path | None = None
) -> None:
    """Write tensors and facts (JSON) to one file with a checksum, all or nothing.

    Args:
        path: of the file.
        tensors: on any device.
        facts: what else is to be known.
        previous: an earlier file of that path is renamed to this.
    """
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    with new_file(path) as temporary:
        save_file(tensors, temporary, metadata={"facts": text, "checksum": _checksum(text, tensors)})
        if previous is not None and path.exists():
            path.replace(previous)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts as `write_tensors` stored them.

    Raises:
        DamagedError: they are not what was written.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DamagedError(str(error)) from error
    text = metadata.get("facts", "")
    if metadata.get("checksum") != _checksum(text, tensors):
        raise DamagedError("its checksum is wrong")
    return tensors, json.loads(text)


def _checksum(facts: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over all that a file holds."""
    total = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


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
    owner = {id(p): o for o in optimizers for p in o.parameters}
    for full_name, value in tensors.items():
        if full_name.startswith(OPTIMIZER):
            name, key = full_name.removeprefix(OPTIMIZER).rsplit("/", 1)
            parameter = parameters[name]
            owner[id(parameter)].state[parameter][key] = value.to(parameter.device)
