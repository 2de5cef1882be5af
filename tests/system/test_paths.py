"""Where things are kept when the usual place cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NoReturn

import pytest

from tinylm.errors import MachineWarning, UserError
from tinylm.system.paths import TEMPORARY, cache_folder, cached, data_folders, find_local


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TINYLM_DATA", "TINYLM_CACHE", TEMPORARY):
        monkeypatch.setenv(name, "")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that nobody can make, root included."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "file" / "cache"))
    return tmp_path / "file" / "cache"


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def refuse(dir: Path) -> NoReturn:  # noqa: A002 (tempfile's name)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "sub").mkdir(parents=True)
    (tmp_path / "cache" / "sub" / "file").touch()
    return tmp_path / "cache"


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "new" / "cache"))
    assert cache_folder() == tmp_path / "new" / "cache"
    assert cached("a/b") == tmp_path / "new" / "cache" / "a" / "b"
    assert list(cache_folder().iterdir()) == []


def test_without_a_cache_work_goes_on_and_one_sentence_says_so(nowhere: Path) -> None:
    with pytest.warns(
        MachineWarning, match=rf"^The cache folder {nowhere} cannot be written \(Not a dir.*\.$"
    ):
        folder = cache_folder()
    with warnings.catch_warnings(action="error"):
        assert cache_folder() == folder  # said once
        child = "from tinylm.system.paths import cache_folder; print(cache_folder())"
        out = subprocess.run([sys.executable, "-W", "error", "-c", child], capture_output=True, text=True)
    assert Path(out.stdout.strip()) == folder, out.stderr
    (folder / "kept").touch()
    assert cached("kept") == find_local("kept") == folder / "kept"


def test_a_temporary_cache_ends_with_its_process(nowhere: Path) -> None:
    child = "from tinylm.system.paths import cache_folder; print(cache_folder(), cache_folder().is_dir())"
    out = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
    folder, there = out.stdout.split()
    assert there == "True"
    assert not Path(folder).exists()


def test_a_read_only_cache_still_serves(read_only: Path) -> None:
    with warnings.catch_warnings(action="error"):
        assert cached("sub/file") == find_local("sub/file") == read_only / "sub" / "file"
    with pytest.warns(MachineWarning, match=r"cache cannot be written \(Permission denied\), so nothing"):
        assert cached("sub/new").parent.parent != read_only


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pooch.os_cache", lambda name: Path("~/.cache") / name)  # what is left without one
    with pytest.warns(MachineWarning, match=r"\(there is no home folder\)"):
        assert cache_folder().is_absolute()
    assert not list(tmp_path.iterdir())


def test_no_folder_at_all_is_one_sentence(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(prefix: str) -> NoReturn:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(UserError, match=r"file/cache cannot be written \(Not a directory\), nor can a temp"):
        cache_folder()


def test_data_is_looked_for_in_the_users_folder_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    assert data_folders() == [tmp_path / "cache"]
    monkeypatch.setenv("TINYLM_DATA", str(tmp_path / "own"))
    assert data_folders() == [tmp_path / "own", tmp_path / "cache"]
    for folder in ("own", "cache"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text(folder)
    found = find_local("file")
    assert found is not None and found.read_text() == "own"
    assert find_local("other") is None
    assert os.environ[TEMPORARY] == ""
