"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

OFFICIAL_FILES = (
    "fewrel/train_wiki.json",
    "ag_news/train.csv",
    "dbpedia/train.csv",
    "bert-base-uncased/vocab.txt",
)


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
