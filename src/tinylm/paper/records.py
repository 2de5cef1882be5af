"""Records: named JSON objects of a results folder, loose while a run writes them, packed afterwards.

A record such as `cells/00c1cb0a344d7648` is written as a file of its own, so that runners never
wait for each other's results. `pack` moves the records into one JSON Lines file per table, a line
each, which is what version control keeps. Where a record lies in both forms, the loose one is newer.

Behind a URL records stay loose: without a lock that all machines share, packing could delete what another
machine has just written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from tinylm.system.files import json_text, locked, write_json, write_text
from tinylm.system.remote import RemoteFolder

Content = dict[str, Any]
KINDS = ("cells", "tables", "committees", "latency", "tuning")  # folders of loose records
PACKED = ".jsonl"


def _trusted(content: Content) -> str | None:
    return None


class Records:
    """The records in a folder.

    Args:
        folder: it need not exist yet.

    Attributes:
        notes: a sentence for each file or line that cannot be trusted and is not used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self._loaded: dict[Path, tuple[tuple[int, ...], dict[str, Content]]] = {}

    def read(self, name: str, problem: Callable[[Content], str | None] = _trusted) -> Content | None:
        """A record, or None where there is none that can be trusted.

        Args:
            name: kind and name, such as `tables/table5`.
            problem: says what is wrong with a content, None if nothing is.
        """
        # Loose first: packing writes the packed file before it deletes the loose one, so a record
        # that is no longer loose is found in the packed file as it is by then.
        loose = self._read_loose(name, problem)
        if loose is not None:
            return loose
        for path in self._packed_files():
            content = self._load(path).get(name)
            if content is None:
                continue
            reason = problem(content)
            if reason is None:
                return content
            self._note(f"{path}: the record {name} {reason} and is not used.")
        return None

    def write(self, name: str, content: Content) -> None:
        """Store a record, loose."""
        with self._changing():
            write_json(self._loose_file(name), content)

    def names(self, kind: str) -> set[str]:
        """Names of all records of a kind, without the kind."""
        found = {path.stem for path in (self.folder / kind).glob("*.json")}
        packed = [name for path in self._packed_files() for name in self._load(path)]
        return found | {name.removeprefix(f"{kind}/") for name in packed if name.startswith(f"{kind}/")}

    def pack(self, file_of: Mapping[str, str]) -> None:
        """Move loose records into packed files.

        A record that a packed file holds already is replaced there. Lines that cannot be read go
        to `NAME.jsonl.damaged` when their file is written.

        Args:
            file_of: for each record's name that of its packed file, without ending; a record that
                is not named stays loose.
        """
        with self._changing():
            packed = {path: dict(self._load(path)) for path in self._packed_files()}
            place = {name: path for path in reversed(packed) for name in packed[path]}
            changed: set[Path] = set()
            done = []
            for loose in [path for kind in KINDS for path in (self.folder / kind).glob("*.json")]:
                name = f"{loose.parent.name}/{loose.stem}"
                if name not in place and name not in file_of:
                    continue
                content = self._read_loose(name, _trusted)
                if content is None:
                    continue
                path = place.get(name) or self.folder / (file_of[name] + PACKED)
                if packed.setdefault(path, {}).get(name) != content:
                    packed[path][name] = content
                    changed.add(path)
                done.append(loose)
            for path in changed:
                self._keep_damaged_lines(path)
                write_text(path, "".join(_line(name, packed[path][name]) for name in sorted(packed[path])))
            for loose in done:
                loose.unlink()
            for kind in KINDS:
                with suppress(OSError):  # not there, or not empty
                    (self.folder / kind).rmdir()

    def set_aside(self, name: str, reason: str) -> None:
        """Rename a file of the folder that cannot be trusted."""
        path = self.folder / name
        aside = path.with_name(path.name + ".damaged")
        with suppress(FileNotFoundError):  # another runner was faster
            path.replace(aside)
        self._note(f"{path} {reason}; it was renamed to {aside.name} and is not used.")

    def _changing(self) -> AbstractContextManager[bool]:
        """Held while records are written or moved: packing must not delete what was not packed."""
        return locked(self.folder / ".locks" / "records")

    def _loose_file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read_loose(self, name: str, problem: Callable[[Content], str | None]) -> Content | None:
        data = self._data(f"{name}.json")
        if data is None:
            return None
        try:
            content = json.loads(data)
            reason = problem(content) if isinstance(content, dict) else "is damaged (not a JSON object)"
        except ValueError as error:
            reason = f"is damaged ({error})"
        if reason is None:
            return dict(content)
        self.set_aside(f"{name}.json", reason)
        return None

    def _data(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _packed_files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{PACKED}"))

    def _load(self, path: Path) -> dict[str, Content]:
        """The records of a packed file, read again when it has changed."""
        status = path.stat()
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        if path not in self._loaded or self._loaded[path][0] != version:
            self._loaded[path] = version, self._unpacked(str(path), _lines(path))
        return self._loaded[path][1]

    def _unpacked(self, where: str, lines: Iterable[str]) -> dict[str, Content]:
        records = {}
        for number, line in enumerate(lines, 1):
            parsed = _parse(line)
            if isinstance(parsed, str):
                self._note(f"{where}, line {number} is damaged ({parsed}) and is not used.")
            else:
                records[parsed[0]] = parsed[1]
        return records

    def _keep_damaged_lines(self, path: Path) -> None:
        damaged = [line for line in _lines(path) if isinstance(_parse(line), str)] if path.exists() else []
        if damaged:
            with path.with_name(path.name + ".damaged").open("a", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in damaged)

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


class RemoteRecords(Records):
    """The records behind a URL.

    Args:
        remote: where they lie.
    """

    def __init__(self, remote: RemoteFolder) -> None:
        super().__init__(Path())
        self._remote = remote
        self._all: dict[str, bytes] | None = None

    def load(self, names: Sequence[str]) -> None:
        """Read all records at once, as one by one would take long; from then on no other is looked for.

        Args:
            names: of all objects.
        """
        kinds = tuple(f"{kind}/" for kind in KINDS)
        packed = [name for name in names if "/" not in name and name.endswith(PACKED)]
        self._all = self._remote.read_all([*packed, *(name for name in names if name.startswith(kinds))])
        self._loaded.clear()

    def write(self, name: str, content: Content) -> None:
        """Store a record."""
        data = json_text(content).encode()
        self._remote.write(f"{name}.json", data)
        if self._all is not None:
            self._all[f"{name}.json"] = data

    def names(self, kind: str) -> set[str]:
        """Names of all records of a kind that were loaded, without the kind."""
        found = [name.removesuffix(".json") for name in self._all or {}]
        found += [name for path in self._packed_files() for name in self._load(path)]
        return {name.removeprefix(f"{kind}/") for name in found if name.startswith(f"{kind}/")}

    def pack(self, file_of: Mapping[str, str]) -> None:
        """Leave the records as they are."""

    def set_aside(self, name: str, reason: str) -> None:
        """Note that an object cannot be trusted; it stays until it is written again."""
        self._note(f"{self._remote.url}/{name} {reason} and is not used.")

    def _data(self, name: str) -> bytes | None:
        return self._remote.read(name) if self._all is None else self._all.get(name)

    def _packed_files(self) -> list[Path]:
        return sorted(Path(name) for name in self._all or {} if name.endswith(PACKED))

    def _load(self, path: Path) -> dict[str, Content]:
        if path not in self._loaded:
            text = (self._all or {})[path.name].decode(errors="replace")
            self._loaded[path] = (), self._unpacked(f"{self._remote.url}/{path}", text.splitlines())
        return self._loaded[path][1]


def _line(name: str, content: Content) -> str:
    return json.dumps({"record": name, "content": content}) + "\n"


def _lines(path: Path) -> Iterable[str]:
    return [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line]


def _parse(line: str) -> tuple[str, Content] | str:
    """Name and content of a packed line, or what is wrong with it."""
    try:
        record = json.loads(line)
        name, content = record["record"], record["content"]
    except ValueError as error:
        return str(error)
    except (KeyError, TypeError):
        return "expected an object with the keys record and content"
    return (name, content) if isinstance(content, dict) else "its content is not an object"
