"""Output folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tinylm.errors import UserError
from tinylm.system.files import check_new, new_folder, read_record, write_record


def test_a_folder_appears_only_when_it_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with new_folder(folder) as partial:
        (partial / "file").write_text("content")
        (partial / "inner").mkdir()
        assert not folder.exists()
    assert (folder / "file").read_text() == "content"
    assert sorted(path.name for path in folder.iterdir()) == ["file", "inner"]
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("error", [UserError, OSError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), new_folder(tmp_path / "out") as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "file").write_text("half")
        raise error("stop")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_may_be_filled_and_survives_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(OSError, match="stop"), new_folder(folder):
        raise OSError("stop")
    assert list(tmp_path.iterdir()) == [folder]
    with new_folder(folder) as partial:
        (partial / "file").touch()
    assert (folder / "file").exists()


def test_what_a_killed_run_left_is_no_part_of_the_next(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as partial:
        pass
    (tmp_path / "out").rename(partial)
    (partial / "old").touch()
    with new_folder(tmp_path / "out") as partial:
        (partial / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    file.write_text("mine")
    for taken in (folder, file):
        with pytest.raises(UserError, match=f"{taken} exists already"):
            check_new(taken)
        with pytest.raises(UserError, match=f"{taken} exists already"), new_folder(taken):
            pytest.fail("the block ran")
    assert (folder / "precious").read_text() == file.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_the_working_folder_is_refused_as_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="'.'.*give a new folder"), new_folder(Path()):
        pytest.fail("the block ran")
    assert not list(tmp_path.iterdir())


def test_a_record_comes_back(tmp_path: Path) -> None:
    facts = {"seed": 3, "settings": {"out": "größe", "rate": 0.15, "none": None}, "history": [{"loss": 1.5}]}
    write_record(tmp_path, "classifier", **facts)
    record = read_record(tmp_path)
    assert record["kind"] == "classifier"
    assert {name: record[name] for name in facts} == facts
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"].keys() == {"tinylm", "torch", "tokenizers", "numpy", "python"}
    assert "größe" in (tmp_path / "tinylm.json").read_text(encoding="utf-8")


def test_a_record_is_missing_or_damaged(tmp_path: Path) -> None:
    assert read_record(tmp_path) == {}
    for data in (b"", b'{"kind": ', b"\xff"):
        (tmp_path / "tinylm.json").write_bytes(data)
        with pytest.raises(UserError, match=r"tinylm\.json is not valid JSON"):
            read_record(tmp_path)
