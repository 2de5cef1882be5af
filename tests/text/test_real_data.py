"""The whole way on real files: Wikipedia openings to a classifier, for each of the paper's tasks."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from tinylm import cli
from tinylm.errors import UserError
from tinylm.infer.committee import load_committee
from tinylm.system.files import hash_files
from tinylm.text.corpus import open_corpus
from tinylm.text.store import open_store
from tinylm.text.tasks import load_task
from tinylm.text.tokenizer import load_tokenizer

FEWREL_10 = [5, 10, 11, 16, 17, 25, 27, 33, 36, 39]
# Task, label numbers, number of labels, training and test rows of each.
TASKS = [("fewrel", FEWREL_10, 10, 20, 10), ("agnews", None, 4, 50, 25), ("dbpedia", None, 14, 15, 5)]
Labels = list[int] | None


def options_of(task: str, labels: Labels, train: int, test: int) -> str:
    chosen = f"--labels {','.join(map(str, labels))}" if labels else ""
    return f"--task {task} {chosen} --train-per-label {train} --test-per-label {test}"


def tinylm(command: str, capsys: pytest.CaptureFixture[str] | None = None) -> str:
    """Run a command line that must succeed; gives back what it printed, where captured."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["tinylm", *shlex.split(command)])
        cli.main()
    assert not end.value.code
    return "".join(capsys.readouterr()) if capsys else ""


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "tinylm.json").read_text(encoding="utf-8"))
    return record


@pytest.fixture(scope="module")
def leads(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Openings of Wikipedia articles; what is tokenized stays in a folder of the tests."""
    path = data_folder / "wikipedia" / "en_leads.parquet"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLM_DATA", str(data_folder))
        patch.setenv("TINYLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COLUMNS", "200")
        yield path


@pytest.fixture(scope="module")
def pretrained(leads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One block, one head, one epoch on 2,000 openings, in the vocabulary of bert-base-uncased."""
    folder = tmp_path_factory.mktemp("models") / "pretrained"
    shape = "--size 2000 --layers 1 --heads 1 --epochs 1 --recipe fast --tokenizer bert-base-uncased"
    tinylm(f"pretrain --corpus {leads} {shape} --out {folder}")
    return folder


def test_pretraining_on_openings_of_wikipedia(leads: Path, pretrained: Path) -> None:
    record = record_of(pretrained)
    assert record["corpus"]["fingerprint"] == hash_files([leads])
    assert record["corpus"]["w_s"] == 2000
    assert record["model"]["vocab_size"] == 30_522
    # All tokens alike have a loss of log 30,522 = 10.3.
    assert record["history"][0]["loss"] < 8


@pytest.mark.parametrize(("task", "labels", "n_labels", "train", "test"), TASKS)
def test_finetuning_on_the_papers_tasks(
    pretrained: Path, task: str, labels: Labels, n_labels: int, train: int, test: int
) -> None:
    out = pretrained.with_name(task)
    tinylm(f"finetune {pretrained} {options_of(task, labels, train, test)} --epochs 15 --out {out}")
    record = record_of(out)
    sizes = (record["task"]["train_texts"], record["task"]["test_texts"])
    assert sizes == (n_labels * train, n_labels * test)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert len(config["id2label"]) == n_labels
    assert record["pretraining"]["corpus"]["w_s"] == 2000
    # An untrained model guesses: its accuracy is that of chance, with this standard error.
    chance = 1 / n_labels
    error = np.sqrt(chance * (1 - chance) / sizes[1])
    loaded = load_task(task, labels=labels, train_per_label=train, test_per_label=test)
    predictions = load_committee(out).predict(loaded.test_texts)
    truth = [loaded.label_names[label] for label in loaded.test_labels]
    assert accuracy_score(truth, predictions) > chance + 4 * error


@pytest.mark.parametrize(("task", "labels", "n_labels", "train", "test"), TASKS)
def test_coverage_of_the_papers_tasks(
    leads: Path,
    tmp_path: Path,
    task: str,
    labels: Labels,
    n_labels: int,
    train: int,
    test: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tinylm(f"corpus --corpus {leads} --max-tokens 64 --size 2000 --out {tmp_path / 'w_s'}", capsys)
    out = tinylm(f"coverage {tmp_path / 'w_s'} {options_of(task, labels, train, test)}", capsys)
    loaded = load_task(task, labels=labels, train_per_label=train, test_per_label=test)
    tokenizer = load_tokenizer("bert-base-uncased")
    in_task = set(tokenizer.encode(loaded.train_texts + loaded.test_texts).ids.tolist())
    in_w_s = set(open_store(tmp_path / "w_s")[0].ids.tolist())
    cells = next(line for line in out.splitlines() if line.startswith("│")).strip("│").split("│")
    numbers = [int(cell.replace(",", "")) for cell in cells[:4]]
    assert numbers == [2000, len(in_w_s), len(in_task), len(in_task - in_w_s)]


def test_a_model_that_saw_test_articles_is_said_to(
    leads: Path, pretrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        task = load_task("vital-topics")
    except UserError as error:
        pytest.skip(str(error))
    assert task.test_titles & {article.title for article in open_corpus(str(leads)).articles()}
    out = pretrained.with_name("topics")
    few = "--labels 0,1 --train-per-label 5 --test-per-label 5 --epochs 1"
    said = tinylm(f"finetune {pretrained} --task vital-topics {few} --out {out}", capsys)
    assert "may have seen test articles of vital-topics" in said
