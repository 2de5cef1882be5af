"""The results folder of a preset: cells, plans of tables, committees and latencies.

A cell is named by its key, the hash of its identity, which it also holds: one that was damaged,
renamed or written under other settings gives itself away and is reported, never mixed in. All
figures are records (see `records.py`); raw logits lie beside them as `.npz` and stay out of version
control.

Results can also lie behind a URL, such as `s3://bucket/path`, which several machines reach. Two that compute
a cell at the same time write the same under the same key. The weights of pre-trainings lie there too, as
machines need no cache folder in common.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tinylm.errors import UserError
from tinylm.paper.records import KINDS, Records, RemoteRecords
from tinylm.system.files import json_text, keep, key_of, new_file, write_json, write_text
from tinylm.system.paths import cache_folder, cached
from tinylm.system.remote import RemoteFolder

# .gitignore of a results folder: loose records are packed when a run ends.
IGNORED = "".join(f"{kind}/\n" for kind in KINDS) + "logits/\nsearches/\n.locks/\n*.damaged\n*.partial\n"
OfPanel = Literal["committees", "latency", "tuning"]
PRETRAINING = "pretraining.json"  # of a folder of weights
Folder = Path | str  # a path, or a URL


def weights_folder(key: str) -> Path:
    """Where the weights of a pre-training are kept: in the cache, as they are large."""
    return cached(f"paper/pretrained/{key}")


def open_results(folder: Folder) -> Results:
    """The results in a folder or behind a URL."""
    return RemoteResults(folder) if isinstance(folder, str) else Results(folder)


class Results:
    """A results folder.

    Args:
        folder: it is made when `begin` is called.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Folder = Path(folder)
        self._folder = Path(folder)
        self._records = Records(self._folder)

    @property
    def notes(self) -> list[str]:
        """A sentence for each file or line that cannot be trusted and is not used."""
        return self._records.notes

    def check(self, preset: str) -> None:
        """Refuse a folder that cannot take the results of a preset.

        Raises:
            UserError: the folder holds results of another preset, or something else.
        """
        stored = self.text("preset.json")
        if stored is not None:
            found = json.loads(stored).get("preset")
            if found != preset:
                raise UserError(
                    f"{self.folder} holds results of the preset '{found}', not '{preset}'; give another"
                    " folder of `results`."
                )
        elif any(not _is_ours(name) for name in self._entries()):
            raise UserError(
                f"{self.folder} is not empty and holds no results; give another folder of `results`."
            )

    def begin(self, preset: str) -> None:
        """Make the folder for results of a preset.

        Raises:
            UserError: as `check`.
        """
        self.check(preset)
        write_json(self._folder / "preset.json", {"preset": preset})
        write_text(self._folder / ".gitignore", IGNORED)

    def refresh(self) -> None:
        """See what other machines have stored by now, which in a folder is seen at any time."""

    def text(self, name: str) -> str | None:
        """The content of a text file, or None where there is none."""
        data = self._read(name)
        return None if data is None else data.decode()

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
        return self._folder / ".locks" / key

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
            packed = io.BytesIO()
            np.savez_compressed(packed, **logits)  # type: ignore[arg-type]
            self._write(f"logits/{key}.npz", packed.getvalue())
        self._records.write(f"cells/{key}", cell)

    def logits(self, key: str) -> dict[str, np.ndarray] | None:
        """Logits of a cell; None where they are not stored, as in a fresh clone."""
        name = f"logits/{key}.npz"
        packed = self._read(name)
        if packed is None:
            return None
        try:
            with np.load(io.BytesIO(packed)) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            self._records.set_aside(name, f"is damaged ({error})")
            return None

    def has_weights(self, key: str) -> bool:
        """Whether the weights of a pre-training are there."""
        return weights_folder(key).is_dir()

    def keep_weights(self, key: str) -> None:
        """Store the weights of a pre-training for machines with another cache folder; here, all share it."""

    def fetch_weights(self, key: str) -> bool:
        """Put the weights of a pre-training into the cache folder, if `keep_weights` has stored them."""
        return False

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
        return self._folder / "searches" / f"{key}.log"

    def _entries(self) -> list[str]:
        return [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []

    def _read(self, name: str) -> bytes | None:
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None

    def _write(self, name: str, data: bytes) -> None:
        with new_file(self._folder / name) as temporary:
            temporary.write_bytes(data)


class RemoteResults(Results):
    """Results behind a URL.

    Args:
        url: see `RemoteFolder`.
    """

    _records: RemoteRecords

    def __init__(self, url: str) -> None:
        self._remote = RemoteFolder(url)
        self.folder = self._remote.url
        self._records = RemoteRecords(self._remote)
        self._names: frozenset[str] = frozenset()

    def check(self, preset: str) -> None:
        """See `Results.check`; also refuses what cannot be reached."""
        self._remote.check()
        super().check(preset)

    def begin(self, preset: str) -> None:
        """See `Results.begin`."""
        self.check(preset)
        self._write("preset.json", json_text({"preset": preset}).encode())

    def refresh(self) -> None:
        """See what other machines have stored by now."""
        names = self._remote.names()
        self._names = frozenset(names)
        self._records.load(names)

    def lock(self, key: str) -> Path:
        """The lock file of a cell, for those who share the cache folder."""
        return cache_folder() / "locks" / f"{key}-{key_of({'results': self.folder})}"

    def has_weights(self, key: str) -> bool:
        """Whether the weights of a pre-training are there, as of the last `refresh`."""
        return f"pretrained/{key}/{PRETRAINING}" in self._names

    def keep_weights(self, key: str) -> None:
        """Store the weights of a pre-training, their record at last."""
        for path in sorted(weights_folder(key).iterdir(), key=lambda path: path.name == PRETRAINING):
            self._write(f"pretrained/{key}/{path.name}", path.read_bytes())

    def fetch_weights(self, key: str) -> bool:
        """Put the weights of a pre-training into the cache folder, if `keep_weights` has stored them."""
        files = self._remote.read_all(self._remote.names(f"pretrained/{key}"))
        if f"pretrained/{key}/{PRETRAINING}" not in files:
            return False

        def write(partial: Path) -> None:
            for name, data in files.items():
                (partial / Path(name).name).write_bytes(data)

        keep(weights_folder(key), write)
        return True

    def _entries(self) -> list[str]:
        return self._remote.names()

    def _read(self, name: str) -> bytes | None:
        return self._remote.read(name)

    def _write(self, name: str, data: bytes) -> None:
        self._remote.write(name, data)


def _is_ours(name: str) -> bool:
    """Whether a file may be there before `preset.json` is, of a runner that begins at this moment."""
    return name in (".gitignore", ".locks") or name.endswith(".partial")


def _of_panel(kind: OfPanel, table: str, panel: str) -> str:
    return f"{kind}/{table}{panel and '-' + panel}"


def _lacks(*needed: str) -> Callable[[dict[str, Any]], str | None]:
    """Says which of the needed keys a record does not have."""

    def problem(content: dict[str, Any]) -> str | None:
        return next((f"is damaged (lacks {key})" for key in needed if key not in content), None)

    return problem
