"""What other operating systems lack is not needed to import anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import importlib, pkgutil, sys
for name in ("fcntl", "resource", "termios"):
    sys.modules[name] = None  # as on Windows
import tinylm
names = [module.name for module in pkgutil.walk_packages(tinylm.__path__, "tinylm.")]
for name in names:
    if name != "tinylm.__main__":
        importlib.import_module(name)
print(len(names))
"""


@pytest.mark.slow
def test_every_module_can_be_imported_on_windows() -> None:
    for extra in ("onnx", "onnxruntime", "fastapi", "uvicorn", "prometheus_client"):
        pytest.importorskip(extra)
    out = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert out.stdout and int(out.stdout) > 100, out.stderr
