"""What a prediction from a cold start loads, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from helpers.toys import TOKENIZERS, make_classifier
from tinylm.infer.committee import Committee

HEAVY = {
    "torch",
    "numba",
    "scipy",
    "sklearn",
    "pandas",
    "pyarrow",
    "datasets",
    "matplotlib",
    "pooch",
    "transformers",
}
PROGRAM = """
import json, sys
sys.argv = ["tinylm", "predict", sys.argv[1], "one two three"]
from tinylm.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
modules = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps(modules))
"""


def test_one_text_needs_no_pytorch(tmp_path: Path) -> None:
    counts = np.full(len(TOKENIZERS[0]), 9)
    committee = Committee([make_classifier(1), make_classifier(2, layers=2)], token_counts=counts)
    committee.save(tmp_path)
    run = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    line, modules = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert line.split("\t")[0] == committee.predict(["one two three"])[0]
    assert not HEAVY & set(json.loads(modules))
    assert {"onnxruntime", "tokenizers"} <= set(json.loads(modules))


def test_onnxruntime_does_not_prepare_to_report(tmp_path: Path) -> None:
    # Its telemetry begins at the first import with an identifier of the user, in a folder of its own in HOME.
    silencing = {"ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in silencing}
    run = [sys.executable, "-c", "import tinylm.infer.engine"]
    subprocess.run(run, env=environment | {"HOME": str(tmp_path)}, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*"))
