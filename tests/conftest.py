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
    """The folder of real data sets named by TINYLM_DATA; the test skips where it is absent."""
    folder = Path(os.environ.get("TINYLM_DATA", Path(__file__).parents[2] / "shared" / "data"))
    missing = [name for name in OFFICIAL_FILES if not (folder / name).is_file()]
    if missing:
        pytest.skip(f"TINYLM_DATA ({folder}) lacks {', '.join(missing)}")
    return folder
