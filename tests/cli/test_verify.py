"""`tinylm verify`: an output folder beside the hashes in its record."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from helpers.command import TINY, done, record_of, refused, tinylm


@pytest.mark.parametrize("kind", ["corpus", "pretrain", "finetune", "committee", "onnx", "huggingface"])
def test_a_folder_as_it_was_written(home: Path, tmp_path: Path, kind: str) -> None:
    commands = {
        "corpus": "corpus --corpus corpus.txt --vocabulary 300 --size 10",
        "pretrain": f"pretrain --corpus corpus.txt --size 20 {TINY}",
        "finetune": "finetune pretrained --task task.csv --epochs 1",
        "committee": "committee classifier classifier",
        "onnx": "export classifier --to onnx",
        "huggingface": "export classifier --to huggingface",
    }
    folder = tmp_path / "out"
    done(f"{commands[kind]} --out", folder)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "tinylm.json"]
    for path in files:
        hashed = record_of(folder)["files"][path.relative_to(folder).as_posix()]
        assert hashed == hashlib.sha256(path.read_bytes()).hexdigest()
    outcome = done("verify", folder)
    sources = 1 if kind in ("corpus", "pretrain", "finetune") else 0  # corpus.txt or task.csv
    assert (outcome.out, outcome.err) == (
        f"{len(files) + sources} files of {folder} are as they were written\n",
        "",
    )


def test_what_differs_is_shown(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "classifier"
    shutil.copytree("classifier", folder)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (folder / "vocab.txt").unlink()
    (folder / "notes.txt").write_text("mine")
    found = tinylm("verify", folder)
    assert found.code == 2
    lines = [line.strip("│ ").split() for line in found.out.splitlines()]
    assert ["model.safetensors", "│", "has", "changed"] in lines
    assert ["vocab.txt", "│", "is", "missing"] in lines
    assert "2 of " in found.out and "differ from the record" in found.out
    assert found.err == "notes.txt is not in the record\n"


def test_sources_are_compared_where_they_are(home: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    shutil.copy("task.csv", table)
    done(f"finetune pretrained --epochs 1 --task {table} --out", tmp_path / "out")
    table.write_text(table.read_text() + "a cow,farm\n")
    found = tinylm("verify", tmp_path / "out")
    assert found.code == 2 and "1 of " in found.out
    assert "has changed" in found.out and "source" in found.out
    table.unlink()
    assert done("verify", tmp_path / "out").err == f"the source {table} is not here and was not compared\n"


def test_a_folder_without_hashes_cannot_be_verified(tmp_path: Path) -> None:
    assert "expected a folder whose tinylm.json holds hashes of its files" in refused(
        tinylm("verify", tmp_path)
    )
