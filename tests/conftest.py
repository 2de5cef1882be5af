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

# The modules that take longest, which begin first: one that began last would run alone.
LONGEST = (
    "cli/test_ray.py",
    "fit/test_estimator.py",
    "train/test_training.py",
    "paper/test_runner.py",
    "fit/test_resume.py",
    "cli/test_fit.py",
    "cli/test_pretrain.py",
    "paper/test_tuning.py",
    "train/test_loss_curve.py",
    "cli/test_torture.py",
)
OFFICIAL_FILES = (
    "fewrel/train_wiki.json",
    "ag_news/train.csv",
    "dbpedia/train.csv",
    "bert-base-uncased/vocab.txt",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest modules begin first, all else in the order of their names."""
    rank = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


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
