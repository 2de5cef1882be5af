"""Output files and folders, all or nothing, and what is known about them: records, locks, keys, hashes.

A file or folder is written under a temporary name beside its own and takes its name when it is
complete. A reader therefore sees the old content or the new one, and two processes that write the
same thing never share a temporary name. What a killed process left behind is removed by the next
one that writes into the same folder.

An output folder ends with its record, `tinylm.json`: settings, seed, versions, hashes of the data,
figures, and the hash of every file in the folder.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinylm.errors import UserError
from tinylm.system.plain_json import read_json

RECORD = "tinylm.json"
SOURCES = ("data", "test", "unlabelled", "corpus", "task")  # settings that can name a file
LIBRARIES = ("tinylm", "torch", "tokenizers", "numpy")
# Errors that name no file when a library raises them: full disk, quota, limit on the size of a file.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_new(folder: Path) -> None:
    """Refuse an output folder that would overwrite something.

    Raises:
        UserError: a file or a folder with something in it is there, or the folder is the working one.
    """
    folder = Path(folder)
    if not folder.name:  # "." cannot be renamed into place
        raise UserError(f"the output folder is '{folder}'; expected the name of a new folder.")
    if folder.is_dir():
        _remove_leftovers(folder)
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise UserError(f"{folder} exists already and is not empty; give a new folder.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a new folder, all or nothing.

    Yields the path to write to; it takes its name when the `with` block ends without
    an exception, and is deleted otherwise.

    Raises:
        UserError: `folder` exists and is not empty, or there is no room on its disk.
    """
    folder = Path(folder)
    check_new(folder)
    if not folder.exists():
        with _temporary(folder, folder.parent) as temporary:
            temporary.mkdir()
            yield temporary
            check_new(folder)  # another process may have made it by now
            temporary.rename(folder)
        return
    # An empty folder is filled from the inside: it may be a mount point, or its parent may be read-only.
    with _temporary(folder, folder) as temporary:
        temporary.mkdir()
        yield temporary
        for part in sorted(temporary.iterdir()):
            part.rename(folder / part.name)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write a file, all or nothing; an earlier one stays until the new one is complete.

    Yields the path to write to; it takes the place of `path` when the `with` block ends
    without an exception, and is deleted otherwise.

    Raises:
        UserError: there is no room on its disk.
    """
    path = Path(path)
    with _temporary(path, path.parent) as temporary:
        yield temporary
        temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8), all or nothing."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object, indent: int = 1) -> None:
    """Write a JSON file, all or nothing."""
    write_text(path, json_text(content, indent))


def json_text(content: object, indent: int = 1) -> str:
    """The text of a JSON file."""
    return json.dumps(content, indent=indent, ensure_ascii=False) + "\n"


def keep(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder of the cache.

    Where another process does the same, the folder of the first one stays. Where there is no
    room, nothing is kept: without a cache the next run takes longer, that is all.
    """
    with suppress(UserError), _temporary(folder, folder.parent) as temporary:
        temporary.mkdir()
        write(temporary)
        with suppress(OSError):  # it is there by now
            temporary.rename(folder)


@contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """Put a file into a folder for a while: a machine that sees it reaches the same folder."""
    with _temporary(Path(folder) / "shared", Path(folder)) as mark:
        mark.touch()
        yield mark


_temporaries: dict[str, Path] = {}  # by name: what this process is writing


@contextmanager
def _temporary(path: Path, parent: Path) -> Iterator[Path]:
    """A free name in `parent` for what will become `path`; whatever still has that name is deleted."""
    parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(parent)
    temporary = parent / f"{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.partial"
    _temporaries[temporary.name] = temporary
    try:
        yield temporary
    except Exception as error:
        if (code := _error_number(error)) in NO_ROOM:
            raise UserError(f"{path} could not be written: {os.strerror(code)}.") from error
        raise
    finally:
        _remove(temporary)
        del _temporaries[temporary.name]


def scratch_folder() -> Path:
    """A folder among the system's temporary ones that is deleted when this process ends.

    Raises:
        OSError: there is no folder for temporary ones.
    """
    folder = Path(tempfile.mkdtemp(prefix="tinylm-"))
    _temporaries[folder.name] = folder
    owner = os.getpid()
    # A forked process may end before the one that it was copied from.
    atexit.register(lambda: _remove(folder) if os.getpid() == owner else None)
    return folder


def remove_temporaries() -> None:
    """Delete what this process is still writing; for one that must end at once."""
    for temporary in list(_temporaries.values()):
        _remove(temporary)


def _remove_leftovers(parent: Path) -> None:
    """Delete what processes that have ended were writing into a folder."""
    for path in parent.glob("*.partial"):
        found = re.fullmatch(r".+\.([0-9a-f]{6})-(\d+)-[0-9a-f]{8}\.partial", path.name)
        if found and found[1] == _machine() and path.name not in _temporaries and not _lives(int(found[2])):
            _remove(path)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # not there, or another user's
        path.unlink()


def _machine() -> str:
    """Six digits for the processes that have one numbering: those of this machine, or of this container."""
    try:
        numbering = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        numbering = 0
    return hashlib.sha256(f"{platform.node()} {numbering}".encode()).hexdigest()[:6]


def _lives(process: int) -> bool:
    """Whether another process of this number may be at work."""
    if process == os.getpid():  # an earlier one of this number, as in a container that was started again
        return False
    if sys.platform == "win32":  # the signal would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _error_number(error: Exception) -> int | None:
    """The operating system's error number behind an exception; libraries in Rust have it in their text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def record_of(kind: str, **facts: Any) -> dict[str, Any]:
    """A record: the facts, the versions of the libraries and the time.

    Args:
        kind: of what: "corpus", "pretrained", "classifier", "committee", "bench", ...
        facts: anything that JSON can hold.
    """
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "kind": kind,
        **facts,
        "versions": versions | {"python": platform.python_version()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def write_record(folder: Path, kind: str, **facts: Any) -> None:
    """Write `tinylm.json` into an output folder, with hashes of all files there: the last file to be written.

    Files that the settings name as sources are hashed too. Arguments as of `record_of`.
    """
    settings = facts.get("settings", {})
    named = {str(settings[name]) for name in SOURCES if settings.get(name)}
    hashes = {
        "sources": {name: _sha256(Path(name)) for name in sorted(named) if Path(name).is_file()},
        "files": _hashes(Path(folder)),
    }
    record = record_of(kind, **facts) | hashes
    write_json(Path(folder) / RECORD, record, indent=2)


def read_record(folder: Path) -> dict[str, Any]:
    """Read `tinylm.json`; empty for a folder that another program wrote.

    Raises:
        UserError: the file holds no JSON object.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        return {}
    return read_json(path)


@dataclass(frozen=True)
class Verified:
    """An output folder beside its record.

    Attributes:
        right: number of files, and sources, that are as they were.
        wrong: the others that the record names, and what is wrong with each.
        remarks: sentences on files that could not be compared.
    """

    right: int
    wrong: dict[str, str]
    remarks: list[str]


def verify(folder: Path) -> Verified:
    """Compare an output folder with the hashes in its record.

    Raises:
        UserError: there is no record, or one without hashes.
    """
    record = read_record(folder)
    recorded, sources = record.get("files"), record.get("sources", {})
    if not isinstance(recorded, dict) or not isinstance(sources, dict):
        raise UserError(
            f"{folder} cannot be verified: expected a folder whose {RECORD} holds hashes of its files."
        )
    found = _hashes(Path(folder))
    wrong = {
        name: "has changed" if name in found else "is missing"
        for name, digest in recorded.items()
        if found.get(name) != digest
    }
    remarks = [f"{name} is not in the record" for name in sorted(found.keys() - recorded.keys())]
    here = [name for name in sources if Path(name).is_file()]
    remarks += [f"the source {name} is not here and was not compared" for name in sources if name not in here]
    wrong |= {f"source {name}": "has changed" for name in here if _sha256(Path(name)) != sources[name]}
    return Verified(len(recorded) + len(here) - len(wrong), wrong, remarks)


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of all files of a folder but its record, by their paths in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECORD)
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file; the lock vanishes with the process that holds it.

    Args:
        path: of the lock file; it stays behind, empty.
        wait: until the lock is free; otherwise the block runs at once, with False where it is not.

    Yields:
        Whether the lock is held.
    """
    # Slow to import, and most commands need no lock.
    from filelock import FileLock, Timeout

    from tinylm.system.progress import progress_bars

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            yield False
            return
        with progress_bars() as bars:
            bars.add("waiting for another process of tinylm", None)
            lock.acquire()
    try:
        yield True
    finally:
        lock.release()


def key_of(identity: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits that tell one identity from another."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_files(files: Iterable[Path]) -> str:
    """Sixteen hexadecimal digits over names, sizes and contents of files."""
    combined = hashlib.sha256()
    for path in files:
        combined.update(f"{path.name} {path.stat().st_size} {_sha256(path)}\n".encode())
    return combined.hexdigest()[:16]
