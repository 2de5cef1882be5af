"""The results folder: one small JSON file per cell, named by what determines the result.

A cell's key is the hash of its identity, and the file holds the identity, so a file that was
damaged, renamed or written under other settings gives itself away: it is renamed and reported,
never mixed in. Raw logits lie beside as `.npz` and stay out of version control.
"""

from __future__ import annotations

import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.system.files import key_of, new_file, write_json, write_text

IGNORED = "logits/\n.locks/\n*.damaged\n*.partial\n"  # .gitignore of a results folder


def _is_ours(path: Path) -> bool:
    """Whether a file may be there before `preset.json` is, of a runner that begins at this moment."""
    return path.name in (".gitignore", ".locks") or path.name.endswith(".partial")


class Results:
    """A results folder.

    Args:
        folder: it is made when `begin` is called.

    Attributes:
        set_aside: sentences on files that were renamed because they cannot be trusted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.set_aside: list[str] = []

    def begin(self, preset: str) -> None:
        """Make the folder for results of a preset.

        Raises:
            UserError: the folder holds results of another preset.
        """
        path = self.folder / "preset.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8")).get("preset")
            if found != preset:
                raise UserError(
                    f"{self.folder} holds results of the preset '{found}', not '{preset}'; give another"
                    " folder of `results`."
                )
        elif self.folder.is_dir() and any(not _is_ours(path) for path in self.folder.iterdir()):
            raise UserError(
                f"{self.folder} is not empty and holds no results; give another folder of `results`."
            )
        write_json(path, {"preset": preset})
        write_text(self.folder / ".gitignore", IGNORED)

    def lock(self, key: str) -> Path:
        """The lock file of a cell."""
        return self.folder / ".locks" / key

    def has(self, key: str) -> bool:
        """Whether a cell is finished."""
        return self.read(key) is not None

    def read(self, key: str) -> dict[str, Any] | None:
        """A finished cell, or None; a file that cannot be trusted is set aside."""
        path = self.folder / "cells" / f"{key}.json"
        cell = self.read_json(path, "identity", "seconds")
        if cell is not None and key_of(cell["identity"]) != key:
            self._set_aside(path, "belongs to other settings")
            return None
        return cell

    def write(self, key: str, cell: dict[str, Any], logits: dict[str, np.ndarray] | None = None) -> None:
        """Store a finished cell; its logits first, so that no cell is without."""
        if logits is not None:
            with new_file(self.folder / "logits" / f"{key}.npz") as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **logits)  # type: ignore[arg-type]
        write_json(self.folder / "cells" / f"{key}.json", cell)

    def logits(self, key: str) -> dict[str, np.ndarray] | None:
        """Logits of a cell; None where they are not at hand, as in a fresh clone."""
        path = self.folder / "logits" / f"{key}.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            self._set_aside(path, f"is damaged ({error})")
            return None

    def plan(self, table: str) -> dict[str, Any] | None:
        """The stored plan of a table: which cells make its rows."""
        return self.read_json(self.folder / "tables" / f"{table}.json", "spec", "panels", "knobs", "preset")

    def planned(self) -> list[str]:
        """Names of all tables that were ever run here."""
        return sorted(path.stem for path in (self.folder / "tables").glob("*.json"))

    def write_plan(self, table: str, plan: dict[str, Any]) -> None:
        """Store the plan of a table."""
        write_json(self.folder / "tables" / f"{table}.json", plan)

    def latency_file(self, table: str, panel: str) -> Path:
        """Where the latencies of a panel are stored."""
        return self.folder / "latency" / f"{table}{panel and '-' + panel}.json"

    def latency(self, table: str, panel: str) -> dict[str, Any] | None:
        """The stored latencies of a panel."""
        return self.read_json(self.latency_file(table, panel), "ms")

    def read_json(self, path: Path, *needed: str) -> dict[str, Any] | None:
        """A stored file with the keys `needed`, or None; a damaged one is set aside."""
        if not path.is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            missing = [key for key in needed if key not in content]
            reason = f"lacks {missing[0]}" if missing else None
        except (ValueError, TypeError) as error:
            reason = str(error)
        if reason is None:
            return content
        self._set_aside(path, f"is damaged ({reason})")
        return None

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = path.with_name(path.name + ".damaged")
        with suppress(FileNotFoundError):  # another runner was faster
            path.replace(aside)
        self.set_aside.append(f"{path} {reason}; it was renamed to {aside.name} and is not used.")
