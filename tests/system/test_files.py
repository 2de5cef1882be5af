"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tinylm.errors import UserError
from tinylm.system.files import (
    check_new,
    keep,
    locked,
    new_file,
    new_folder,
    read_record,
    remove_temporaries,
    write_json,
    write_record,
    write_text,
)


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


def test_an_empty_folder_may_be_a_mount_point_or_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with new_folder(tmp_path / "out") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").touch()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["inner"]
    assert (tmp_path / "out" / "inner" / "file").exists()


KILLED = """
import os, sys
from pathlib import Path
from tinylm.system.files import new_file, new_folder
with new_folder(Path("out")) as folder, new_file(Path("file")) as file, new_folder(Path("empty")) as inner:
    for path in (folder / "half", file, inner / "half"):
        path.touch()
    print(*os.listdir(), *os.listdir("empty"), flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    names = other.stdout.readline().split()
    assert len([name for name in names if name.endswith(".partial")]) == 3
    for _ in range(2):
        write_text(tmp_path / "mine", "a")
        assert {path.name for path in tmp_path.iterdir()} > {"mine", "empty"}
        with pytest.raises(UserError, match="empty exists already"):
            check_new(tmp_path / "empty")
    other.kill()
    other.wait()
    other.stdout.close()
    with new_folder(tmp_path / "out") as temporary:
        (temporary / "new").touch()
    check_new(tmp_path / "empty")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["empty", "mine", "out", "out/new"]


def test_files_of_other_machines_and_of_users_are_no_leftovers(tmp_path: Path) -> None:
    with new_file(tmp_path / "file") as temporary:
        temporary.touch()
    machine, process, chance, _ = temporary.name.removeprefix("file.").replace(".", "-").split("-")
    assert (int(process), len(chance)) == (os.getpid(), 8)
    other = ("0" if machine[0] != "0" else "1") + machine[1:]
    names = [f"file.{other}-{process}-{chance}.partial", "chapter.partial", f"file.{machine}-12.partial"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / f"file.{machine}-{process}-{'0' * 8}.partial").touch()  # an earlier process of our number
    write_text(tmp_path / "file", "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", *names])


def test_temporaries_of_a_process_that_must_end_can_be_removed(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder, new_file(tmp_path / "file") as file:
        (folder / "half").touch()
        file.touch()
        remove_temporaries()
        assert not list(tmp_path.iterdir())
        folder.mkdir()
        file.touch()


def test_a_file_is_replaced_when_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_text(path, "größe\n")
    with pytest.raises(OSError, match="stop"), new_file(path) as temporary:
        temporary.write_text("half")
        raise OSError("stop")
    assert path.read_text(encoding="utf-8") == "größe\n"
    write_json(path, {"größe": [1, None]}, indent=0)
    assert path.read_text(encoding="utf-8") == '{\n"größe": [\n1,\nnull\n]\n}\n'
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with new_file(tmp_path / "file") as first, new_file(tmp_path / "file") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "file").read_text() == "first"  # the last one to end
    with (
        pytest.raises(UserError, match="out exists already"),
        new_folder(tmp_path / "out"),
        new_folder(tmp_path / "out") as faster,
    ):
        (faster / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_the_first_of_two_folders_is_kept_in_the_cache(tmp_path: Path) -> None:
    def write(content: str) -> Callable[[Path], None]:
        return lambda folder: (folder / "file").write_text(content) and None

    def slow(folder: Path) -> None:
        keep(tmp_path / "cache" / "key", write("first"))
        write("second")(folder)

    keep(tmp_path / "cache" / "key", slow)
    assert (tmp_path / "cache" / "key" / "file").read_text() == "first"
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.fixture
def no_room() -> Iterator[None]:
    """No file may be larger than 1,000 bytes, which is as if the disk were full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def tensors(path: Path) -> None:
    save_file({"weights": np.zeros(1000)}, path)


def lines(path: Path) -> None:
    with path.open("w") as file:
        file.writelines("0123456789" for _ in range(1000))


@pytest.mark.usefixtures("no_room")
@pytest.mark.parametrize("write", [tensors, lines])
def test_no_room_is_one_sentence_and_leaves_nothing(tmp_path: Path, write: Callable[[Path], None]) -> None:
    full = r"out could not be written: File too large\.$"
    with pytest.raises(UserError, match=full), new_folder(tmp_path / "out") as folder:
        write(folder / "file")
    with pytest.raises(UserError, match=full), new_file(tmp_path / "out") as file:
        write(file)
    keep(tmp_path / "kept", lambda folder: write(folder / "file"))  # a cache is not worth an error
    assert not list(tmp_path.iterdir())


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with locked(path) as first, locked(path, wait=False) as second:
        assert (first, second) == (True, False)
    with locked(path, wait=False) as third:
        assert third


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
    with (
        pytest.raises(UserError, match="folder is '.'; expected the name of"),
        new_folder(Path()),
    ):
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
