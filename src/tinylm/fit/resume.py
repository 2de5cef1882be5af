"""What a fit leaves behind when it is interrupted, so that the same command resumes it.

Until a fit is done, a folder beside its output holds `fit.json` (the settings, and the seconds spent so
far) and a folder for each encoder: its finished phases, and the checkpoints of its pre-training.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from tinylm.errors import MachineWarning, UserError
from tinylm.system.files import locked, write_json
from tinylm.train.checkpoint import DamagedError, read_tensors, write_tensors

Model = TypeVar("Model", bound=nn.Module)

STATE, LOCK = "fit.json", "lock"
SECONDS = 1.0  # between two notes of the time that was spent


@dataclass(frozen=True)
class Unfinished:
    """A fit under way.

    Attributes:
        folder: for what is finished of it.
        seconds: that it took before it was interrupted; 0 for a new one.
    """

    folder: Path
    seconds: float


@contextmanager
def under_way(folder: Path, settings: dict[str, Any]) -> Iterator[Unfinished | None]:
    """Keep what a fit finishes in `folder` until the block ends, and note the time that it takes.

    Args:
        folder: it may hold what an earlier attempt finished; it is deleted when the fit is done.
        settings: of the command; those of an earlier attempt must be the same.

    Yields:
        None where no folder can be made, as in a read-only place.

    Raises:
        UserError: another process works on the same fit, or `folder` belongs to other settings.
    """
    path, begin = folder / STATE, time.monotonic()
    settings = json.loads(json.dumps(settings))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        yield None
        return
    with locked(folder / LOCK, wait=False) as held:
        if not held:
            raise UserError(f"another process is working on this fit: it holds {folder}.")
        earlier = _earlier(path, settings)

        def note() -> None:
            write_json(path, {"settings": settings, "seconds": earlier + time.monotonic() - begin})

        over, done = threading.Event(), False

        def note_again_and_again() -> None:
            while not over.wait(SECONDS):
                with suppress(UserError, OSError):  # a full disk, which the fit itself will meet
                    note()

        note()
        thread = threading.Thread(target=note_again_and_again, daemon=True)
        thread.start()
        try:
            yield Unfinished(folder, earlier)
            done = True
        finally:
            over.set()
            thread.join()
            # Of a fit that was refused, or interrupted before anything was trained, nothing is left.
            if done or {path.name for path in folder.iterdir()} <= {STATE, LOCK}:
                shutil.rmtree(folder, ignore_errors=True)


def _earlier(path: Path, settings: dict[str, Any]) -> float:
    """Seconds that an earlier attempt took."""
    if not path.is_file():
        return 0.0
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        theirs, seconds = found["settings"], float(found["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder to start this fit again.") from error
    names = sorted(name for name in theirs.keys() | settings.keys() if theirs.get(name) != settings.get(name))
    if names:
        raise UserError(
            f"{path.parent} belongs to a fit with other settings ({', '.join(names)}); give the same settings"
            " to resume it, or another output folder to start again."
        )
    return seconds


def remembered(
    path: Path | None,
    work: Callable[[], tuple[Model, dict[str, Any]]],
    rebuild: Callable[[dict[str, Any]], Model],
) -> tuple[Model, dict[str, Any]]:
    """A trained model and facts on it (JSON): from a file, or else from `work` and stored there.

    Args:
        path: the file; None stores nothing.
        work: makes model and facts.
        rebuild: makes a model of the same shape out of the facts.
    """
    if path is None:
        return work()
    if path.exists():
        try:
            tensors, facts = read_tensors(path)
        except DamagedError as error:
            warnings.warn(
                f"{path} is damaged ({error}), so its part is trained again.", MachineWarning, stacklevel=2
            )
        else:
            model = rebuild(facts)
            model.load_state_dict(tensors)
            return model.eval(), facts
    model, facts = work()
    write_tensors(path, model.state_dict(), facts)
    return model, facts
