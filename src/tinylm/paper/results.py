"""The results folder of a preset: cells, plans of tables, committees and latencies.

A cell is named by its key, the hash of its identity, which it also holds: one that was damaged,
renamed or written under other settings gives itself away and is reported, never mixed in. All
figures are records (see `records.py`); raw logits lie beside them as `.npz` and stay out of version
control.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tinylm.errors import UserError
from tinylm.paper.records import KINDS, Records
from tinylm.system.files import key_of, new_file, write_json, write_text

# .gitignore of a results folder: loose records are packed when a run ends.
IGNORED = "".join(f"{kind}/\n" for kind in KINDS) + "logits/\nsearches/\n.locks/\n*.damaged\n*.partial\n"
OfPanel = Literal["committees", "latency", "tuning"]


class Results:
    """A results folder.

    Args:
        folder: it is made when `begin` is called.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._records = Records(self.folder)

    @property
    def notes(self) -> list[str]:
        """A sentence for each file or line that cannot be trusted and is not used."""
        return self._records.notes

    def check(self, preset: str) -> None:
        """Refuse a folder that cannot take the results of a preset.

        Raises:
            UserError: the folder holds results of another preset, or something else.
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

    def begin(self, preset: str) -> None:
        """Make the folder for results of a preset.

        Raises:
            UserError: as `check`.
        """
        self.check(preset)
        write_json(self.folder / "preset.json", {"preset": preset})
        write_text(self.folder / ".gitignore", IGNORED)

    def pack(self) -> None:
        """Pack all records into `TABLE.jsonl`; a cell that tables share goes to the first of them."""
        file_of: dict[str, str] = {}
        for table in self.planned():
            plan = self.plan(table)
            if plan is None:
                continue
            names = [f"tables/{table}"]
            for panel in plan["panels"]:
                names += [_of_panel(kind, table, panel["name"]) for kind in get_args(OfPanel)]
                keys = [*panel["baselines"].values()]
                for row in panel["rows"]:
                    keys += [*row["pretrainings"], *row["trials"], *row["without"]]
                names += [f"cells/{key}" for key in keys]
            for name in names:
                file_of.setdefault(name, table)
        self._records.pack(file_of)

    def lock(self, key: str) -> Path:
        """The lock file of a cell."""
        return self.folder / ".locks" / key

    def has(self, key: str) -> bool:
        """Whether a cell is finished."""
        return self.read(key) is not None

    def read(self, key: str) -> dict[str, Any] | None:
        """A finished cell, or None."""

        def problem(cell: dict[str, Any]) -> str | None:
            reason = _lacks("identity", "seconds")(cell)
            if reason is None and key_of(cell["identity"]) != key:
                return "belongs to other settings"
            return reason

        return self._records.read(f"cells/{key}", problem)

    def write(self, key: str, cell: dict[str, Any], logits: dict[str, np.ndarray] | None = None) -> None:
        """Store a finished cell; its logits first, so that no cell is without."""
        if logits is not None:
            with new_file(self.folder / "logits" / f"{key}.npz") as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **logits)  # type: ignore[arg-type]
        self._records.write(f"cells/{key}", cell)

    def logits(self, key: str) -> dict[str, np.ndarray] | None:
        """Logits of a cell; None where they are not stored, as in a fresh clone."""
        path = self.folder / "logits" / f"{key}.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            self._records.set_aside(path, f"is damaged ({error})")
            return None

    def plan(self, table: str) -> dict[str, Any] | None:
        """The stored plan of a table: which cells make its rows."""
        return self._records.read(f"tables/{table}", _lacks("spec", "panels", "knobs", "preset"))

    def planned(self) -> list[str]:
        """Names of all tables that were ever run here: tables and figures, then open questions."""

        def is_question(name: str) -> bool:
            return not re.search(r"\d(-tuned)?$", name)

        return sorted(self._records.names("tables"), key=lambda name: (is_question(name), name))

    def write_plan(self, table: str, plan: dict[str, Any]) -> None:
        """Store the plan of a table."""
        self._records.write(f"tables/{table}", plan)

    def committees(self, table: str, panel: str) -> dict[str, Any] | None:
        """The stored committees of a panel."""
        return self._records.read(_of_panel("committees", table, panel), _lacks("keys", "numbers", "trials"))

    def write_committees(self, table: str, panel: str, content: dict[str, Any]) -> None:
        """Store the committees of a panel."""
        self._records.write(_of_panel("committees", table, panel), content)

    def latency(self, table: str, panel: str) -> dict[str, Any] | None:
        """The stored latencies of a panel."""
        return self._records.read(_of_panel("latency", table, panel), _lacks("ms"))

    def write_latency(self, table: str, panel: str, content: dict[str, Any]) -> None:
        """Store the latencies of a panel."""
        self._records.write(_of_panel("latency", table, panel), content)

    def tuning(self, table: str, panel: str) -> dict[str, Any] | None:
        """The stored findings of the searches for a panel's hyper-parameters."""
        return self._records.read(_of_panel("tuning", table, panel), _lacks("rows"))

    def write_tuning(self, table: str, panel: str, content: dict[str, Any]) -> None:
        """Store the findings of the searches for a panel's hyper-parameters."""
        self._records.write(_of_panel("tuning", table, panel), content)

    def search(self, key: str) -> Path:
        """The file in which a search for hyper-parameters keeps its attempts."""
        return self.folder / "searches" / f"{key}.log"


def _is_ours(path: Path) -> bool:
    """Whether a file may be there before `preset.json` is, of a runner that begins at this moment."""
    return path.name in (".gitignore", ".locks") or path.name.endswith(".partial")


def _of_panel(kind: OfPanel, table: str, panel: str) -> str:
    return f"{kind}/{table}{panel and '-' + panel}"


def _lacks(*needed: str) -> Callable[[dict[str, Any]], str | None]:
    """Says which of the needed keys a record does not have."""

    def problem(content: dict[str, Any]) -> str | None:
        return next((f"is damaged (lacks {key})" for key in needed if key not in content), None)

    return problem
