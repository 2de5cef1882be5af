"""Output folders: all or nothing, each with a record of what made it.

An output folder appears under its name only when it is finished; until then it is
`NAME.partial`. Its last file is `tinylm.json`: settings, seed, versions, hashes of
the data, and figures.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinylm.errors import UserError

RECORD = "tinylm.json"
LIBRARIES = ("tinylm", "torch", "tokenizers", "numpy")


def check_new(folder: Path) -> None:
    """Refuse an output folder that would overwrite something.

    Raises:
        UserError: a file or a folder with something in it is there, or the folder is the working one.
    """
    folder = Path(folder)
    if not folder.name:  # "." would have to be taken away to appear whole
        raise UserError(f"'{folder}' cannot appear as a whole; give a new folder.")
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise UserError(f"{folder} exists already and is not empty; give a new folder.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a new folder, all or nothing.

    Yields the path to write to; it takes its name when the `with` block ends without
    an exception, and is deleted otherwise.

    Raises:
        UserError: `folder` exists and is not empty.
    """
    folder = Path(folder)
    check_new(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)


def write_record(folder: Path, kind: str, **facts: Any) -> None:
    """Write `tinylm.json`.

    Args:
        folder: the output folder.
        kind: what it holds: "corpus", "pretrained", "classifier" or "committee".
        facts: anything that JSON can hold.
    """
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    record = {
        "kind": kind,
        **facts,
        "versions": versions | {"python": platform.python_version()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (Path(folder) / RECORD).write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any]:
    """Read `tinylm.json`; empty for a folder that another program wrote.

    Raises:
        UserError: the file is not JSON.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    return record


def key_of(identity: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits that tell one identity from another."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file, which vanishes with the process that holds it.

    Args:
        path: of the lock file; it stays behind, empty.
        wait: for whoever holds it; otherwise the block runs with False.

    Yields:
        Whether the lock is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def write_json(path: Path, content: object) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    text = json.dumps(content, indent=1, ensure_ascii=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def keep(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill `folder` in the cache; where another process does the same, the first one's stays."""
    partial = folder.with_name(f"{folder.name}.{time.time_ns()}.partial")
    partial.mkdir(parents=True)
    write(partial)
    try:
        partial.rename(folder)
    except OSError:  # it is there by now
        for file in partial.iterdir():
            file.unlink()
        partial.rmdir()


def hash_files(files: Iterable[Path]) -> str:
    """Sixteen hexadecimal digits over names, sizes and contents of files."""
    combined = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        combined.update(f"{path.name} {path.stat().st_size} {content}\n".encode())
    return combined.hexdigest()[:16]
