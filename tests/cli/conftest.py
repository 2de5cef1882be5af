"""Folders that the tests of all commands start from."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.command import NOUNS, TINY, done, sentence, write_table
from tinylm.errors import UserError
from tinylm.text.corpus import read_vital


def _enter(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Work in a folder, with nothing from elsewhere: cache and data are empty."""
    patch.setenv("COLUMNS", "200")
    patch.setenv("TINYLM_CACHE", str(folder / "cache"))
    patch.setenv("TINYLM_DATA", str(folder / "data"))
    patch.chdir(folder)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a task, a pre-trained model and a classifier; made once, never written to."""
    folder = tmp_path_factory.mktemp("trained")
    chance = random.Random(0)
    topics = [chance.choice(sorted(NOUNS)) for _ in range(400)]
    lines = [sentence(topic, chance) for topic in topics]
    (folder / "corpus.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    topics = [chance.choice(sorted(NOUNS)) for _ in range(100)]
    write_table(folder / "task.csv", [(sentence(topic, chance), topic) for topic in topics])
    with pytest.MonkeyPatch.context() as patch:
        _enter(patch, folder)
        done(f"pretrain --corpus corpus.txt {TINY} --seed 5 --out pretrained")
        done("finetune pretrained --task task.csv --epochs 20 --learning-rate 0.002 --out classifier")
    return folder


@pytest.fixture(scope="module")
def home(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of a file of tests: its own copy of `trained`."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(trained, home, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        _enter(patch, home)
        yield home


@pytest.fixture(scope="session")
def vital() -> None:
    """The test skips where the built-in sample is not installed."""
    try:
        read_vital()
    except UserError as error:
        pytest.skip(str(error))
