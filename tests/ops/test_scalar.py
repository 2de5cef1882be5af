"""Where compiled kernels are kept when the installation and the home folder are read-only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
from numba.core import caching

writable = caching.UserProvidedCacheLocator
for locator in caching.CacheImpl._locator_classes:
    if locator is not writable:
        locator.from_function = classmethod(lambda *_: None)

from tinylm.ops.scalar import rank

print(rank._cache.cache_path)
"""


def test_without_a_folder_of_its_own_numba_uses_the_cache_folder(tmp_path: Path) -> None:
    environment = os.environ | {"TINYLM_CACHE": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    out = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment)
    assert Path(out.stdout.strip()).is_relative_to(tmp_path / "numba"), out.stderr
