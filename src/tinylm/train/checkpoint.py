"""Everything a killed run needs to go on, in one file.

Weights, optimizer state and the run's place are written together and renamed
into place, so a checkpoint is either the old one or the new one. No random
state is stored: see `batching.py`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tinylm.errors import UserError


@dataclass
class Place:
    """Where a run stands.

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

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, place: Place) -> None:
        """Write the run's state."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{name}": t.contiguous() for name, t in model.state_dict().items()}
        tensors |= {f"optimizer.{name}": t for name, t in _optimizer_tensors(model, optimizer).items()}
        metadata = {"identity": json.dumps(self.identity), "place": json.dumps(vars(place))}
        partial = self.path.with_name(self.path.name + ".partial")
        save_file(tensors, partial, metadata=metadata)
        partial.replace(self.path)
        self._last = time.monotonic()

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Place:
        """Load the run's state; a fresh `Place` where there is no checkpoint yet.

        Raises:
            UserError: the file is damaged, or of a run with other settings.
        """
        if not self.path.exists():
            return Place()
        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise UserError(f"{self.path} is damaged ({error}); delete it to start this run anew.") from error
        found = json.loads(metadata["identity"])
        if found != self.identity:
            names = sorted(k for k in found.keys() | self.identity.keys() if found.get(k) != self.identity.get(k))
            raise UserError(
                f"{self.path} belongs to a run with other settings ({', '.join(names)});"
                " give the same settings to go on, or another folder to start anew."
            )
        model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
        _restore_optimizer(
            model, optimizer, {n.removeprefix("optimizer."): t for n, t in tensors.items() if n.startswith("optimizer.")}
        )
        return Place(**json.loads(metadata["place"]))

    def remove(self) -> None:
        """Delete the file: the run is over and its result saved."""
        self.path.unlink(missing_ok=True)


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors under names `parameter/state`."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        name, key = full_name.rsplit("/", 1)
        optimizer.state[parameters[name]][key] = value
