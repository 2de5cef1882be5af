"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

# Test modules run side by side, one per core; each on one thread, or they would wait for each other. It
# must be set before PyTorch starts. What needs several threads sets their number itself.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402

from tinylm.fit import encode  # noqa: E402

OFFICIAL_FILES = (
    "fewrel/train_wiki.json",
    "ag_news/train.csv",
    "dbpedia/train.csv",
    "bert-base-uncased/vocab.txt",
)


@pytest.fixture(scope="session", autouse=True)
def narrow_encoders() -> Iterator[None]:
    """Encoders of a fit have half their width: Muon's products take most of a step on a test's few words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "HEADS", encode.HEADS // 2)
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets that TINYLM_DATA names; the test skips without it."""
    if "TINYLM_DATA" not in os.environ:
        pytest.skip("TINYLM_DATA does not name a folder of real data sets")
    folder = Path(os.environ["TINYLM_DATA"])
    missing = [name for name in OFFICIAL_FILES if not (folder / name).is_file()]
    if missing:
        pytest.skip(f"TINYLM_DATA ({folder}) lacks {', '.join(missing)}")
    return folder
