"""Where things are kept: the cache folder and the data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pooch


def cache_folder() -> Path:
    """Where downloads are kept: `$TINYLM_CACHE`, or the platform's cache folder."""
    return Path(os.environ.get("TINYLM_CACHE") or pooch.os_cache("tinylm"))


def data_folders() -> list[Path]:
    """Where data sets are looked for: `$TINYLM_DATA`, the user's own folder, then the cache folder."""
    own = os.environ.get("TINYLM_DATA")
    return [Path(own), cache_folder()] if own else [cache_folder()]


def find_local(name: str) -> Path | None:
    """A file such as `fewrel/pid2name.json` in the first data folder that has it."""
    return next((folder / name for folder in data_folders() if (folder / name).is_file()), None)
