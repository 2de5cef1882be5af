"""Where things are kept: the cache folder and the data folders."""

from __future__ import annotations

import os
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

from tinylm.errors import MachineWarning, UserError
from tinylm.system.files import scratch_folder

# A cache for this run alone, where the named one cannot be written. Processes that this one starts
# find it by this variable.
TEMPORARY = "TINYLM_TEMPORARY_CACHE"


def cache_folder() -> Path:
    """Where downloads, token ids and pre-trained weights are kept for the next run.

    `$TINYLM_CACHE`, or the platform's cache folder. Where that cannot be written, a temporary
    folder takes its place, and a `MachineWarning` says so.

    Raises:
        UserError: no folder at all can be written.
    """
    return _writable(_named_cache(), os.environ.get(TEMPORARY))


def cached(name: str) -> Path:
    """Where the file or folder `name` is in the cache, or will be; a read-only cache serves too."""
    named = _named_cache() / name
    return named if named.exists() else cache_folder() / name


def data_folders() -> list[Path]:
    """Where data sets are looked for: `$TINYLM_DATA`, the user's own folder, then the cache folder."""
    folders = [os.environ.get("TINYLM_DATA"), _named_cache(), os.environ.get(TEMPORARY)]
    return [Path(folder) for folder in folders if folder]


def find_local(name: str) -> Path | None:
    """A file such as `fewrel/pid2name.json` in the first data folder that has it."""
    return next((folder / name for folder in data_folders() if (folder / name).is_file()), None)


def _named_cache() -> Path:
    if own := os.environ.get("TINYLM_CACHE"):
        return Path(own)
    import pooch  # slow to import, and predictions need no cache

    return Path(pooch.os_cache("tinylm"))


@lru_cache
def _writable(folder: Path, temporary: str | None) -> Path:
    """`folder` if it can be written, else the temporary one, which is made if necessary."""
    try:
        if folder.parts[:1] == ("~",):  # what the platform gives where there is no home folder
            raise OSError("there is no home folder")
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return folder
    except OSError as error:
        reason = error.strerror or str(error)
    if temporary and Path(temporary).is_dir():
        return Path(temporary)
    try:
        made = scratch_folder()
    except OSError as error:
        raise UserError(
            f"the cache folder {folder} cannot be written ({reason}), nor can a temporary one; set"
            " TINYLM_CACHE to a folder that can."
        ) from error
    os.environ[TEMPORARY] = str(made)
    warnings.warn(
        f"The cache folder {folder} cannot be written ({reason}), so nothing is kept for the next run;"
        " set TINYLM_CACHE to a folder that can.",
        MachineWarning,
        stacklevel=4,
    )
    return made
