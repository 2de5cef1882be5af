"""Suite `accuracy`: what `TinyTextClassifier` reaches within a time, beside linear models on the same splits.

A case is a task with the paper's training rows and a time, or with fewer rows of each label and the default
time, where the task's other training rows can be texts without labels. A round is a split: seed 42 is the
paper's, others follow. Measured is the share of test texts that are wrong. Nothing is chosen by it: settings
are those of the recipe, all are reported.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.bench.measure import WRONG, Machine, Measured, summarise
from tinylm.bench.recipe.data import TEN
from tinylm.errors import UserError
from tinylm.fit.estimator import TinyTextClassifier
from tinylm.infer.baselines import fasttext_accuracy, linear_svm, linear_svm_on
from tinylm.system.cores import cores
from tinylm.system.files import key_of
from tinylm.system.paths import cached, find_local
from tinylm.system.plain_json import read_json
from tinylm.text.corpus import open_corpus
from tinylm.text.tasks import Task, copy_key, load_task

TASKS: dict[str, dict[str, Any]] = {
    "agnews": {"name": "agnews"},
    "dbpedia": {"name": "dbpedia"},
    "fewrel-10": {"name": "fewrel", "labels": TEN},
    "fewrel-64": {"name": "fewrel"},
}
MINUTES, ROWS = (1, 5, 10, 20, 60), (8, 32, 128)
ROWS_MINUTES = 5  # the default of `fit`
# What is fitted: the default; the same with texts without labels; the same from a model that was pre-trained
# before; the same beside a committee without pre-training, with which it shares the time; with a student of
# the committee, which then predicts in its place; or one encoder by the recipe of the paper, as far as its
# epochs fit into the time.
FIT, UNLABELLED, PRETRAINED, COMPARED = "fit", "unlabelled", "pretrained", "compared"
STUDENT, PAPER = "student", "paper"
PARAMETERS: dict[str, dict[str, Any]] = {
    FIT: {},
    UNLABELLED: {},
    PRETRAINED: {},
    COMPARED: {},
    STUDENT: {"student": True},
    PAPER: {"recipe": "paper", "members": 1, "tfidf_member": False},
}
# Text for pre-training: openings of articles, or all paragraphs where there is an hour to read them. The
# built-in sample where they are not there.
LEADS, ALL_TEXT, HOUR = "wikipedia/en_leads.parquet", "wikipedia", 60
# How the model for PRETRAINED is made, of the same text.
PRETRAINING = "--size 40000 --layers 1 --heads 2 --recipe fast --epochs 5"
FIRST_SEED = 42
ALL_ROWS = 1_000_000  # of each label; more than any task has

Split = dict[str, Any]  # what `measure_split` found
Splits = dict[str, dict[int, Split]]  # by case and number of the round


@dataclass(frozen=True)
class Case:
    """A fit that is measured.

    Attributes:
        task: of TASKS.
        minutes: its budget.
        rows: training rows of each label; None for the paper's.
        kind: of PARAMETERS.
    """

    task: str
    minutes: float
    rows: int | None = None
    kind: str = FIT


CASES = (
    {f"{task}-{minutes}min": Case(task, minutes) for task in TASKS for minutes in MINUTES}
    | {
        f"{task}-{rows}rows{end}": Case(task, ROWS_MINUTES, rows, kind)
        for kind, end in ((FIT, ""), *((kind, f"-{kind}") for kind in (UNLABELLED, PRETRAINED, COMPARED)))
        for task in ("agnews", "dbpedia")
        for rows in ROWS
    }
    | {
        f"{task}-{minutes}min-{kind}": Case(task, minutes, kind=kind)
        for kind in (PRETRAINED, COMPARED, STUDENT, PAPER)
        for task in TASKS
        for minutes in MINUTES
    }
)


@lru_cache
def split(task: str, rows: int | None, seed: int) -> Task:
    """The rows of a task, drawn with a seed."""
    return load_task(**TASKS[task], train_per_label=rows, seed=seed)


@lru_cache
def rivals(task: str, rows: int | None, seed: int) -> dict[str, float]:
    """Test accuracy of the strong linear model and of fastText, and seconds of training and testing them."""
    texts = split(task, rows, seed)
    begin = time.monotonic()
    linear = linear_svm_on(texts)
    between = time.monotonic()
    fasttext = fasttext_accuracy(texts)
    assert linear is not None
    return {
        "linear_svm": linear.accuracy,
        "linear_svm_seconds": between - begin,
        "fasttext": fasttext,
        "fasttext_seconds": time.monotonic() - between,
    }


def other_rows(case: Case, seed: int) -> list[str]:
    """Training texts of a task that a split of it has not drawn, in random order."""
    drawn = set(map(copy_key, split(case.task, case.rows, seed).train_texts))
    texts = split(case.task, ALL_ROWS, seed).train_texts
    return [text for text in texts if copy_key(text) not in drawn]


def self_trained_svm(task: Task, unlabelled: Sequence[str]) -> float:
    """Test accuracy of the strong linear model after it has learned its own labels of more texts, too."""
    svm = linear_svm().fit(task.train_texts, task.train_labels)
    labels = np.concatenate([task.train_labels, svm.predict(unlabelled)])
    svm.fit([*task.train_texts, *unlabelled], labels)
    return float(svm.score(task.test_texts, task.test_labels))


def measure_split(name: str, number: int, machine: Machine) -> Split:
    """Measure one of CASES on the split of that number, from 0."""
    case, seed = CASES[name], FIRST_SEED + number
    texts = split(case.task, case.rows, seed)
    beside = rivals(case.task, case.rows, seed)
    corpus, path = _corpus(case.minutes)
    unlabelled = other_rows(case, seed) if case.kind == UNLABELLED else None
    classifier = TinyTextClassifier(
        budget=f"{case.minutes}min",
        corpus=path,
        pretrained=pretrained_model(path) if case.kind == PRETRAINED else None,
        unlabelled=unlabelled,
        random_state=seed,
        **PARAMETERS[case.kind],
    )
    begin = time.monotonic()
    # What an earlier fit left in the cache folder would save this one its pre-training.
    compare = case.kind == COMPARED
    classifier.fit_for_report(texts.train_texts, texts.train_labels, compare=compare, cache=False)
    seconds = time.monotonic() - begin
    fitted = classifier.fitted_
    assert fitted.coverage is not None  # `tinylm pretrain` says what a model has read
    members = (fitted.teacher or fitted.committee).member_logits(texts.test_texts)
    found = {
        "seed": seed,
        "accuracy": _accuracy(fitted.committee.decision_function(texts.test_texts), texts),
        "members": [_accuracy(logits, texts) for logits in members],  # of a student, those of its teacher
        **beside,
        "seconds": seconds,
        "paragraphs": fitted.coverage.paragraphs,
        "milliseconds": fitted.latency.p50,
        "corpus": corpus,
        "processor": machine.processor,
        "cores": cores(),
    }
    if unlabelled is not None:
        found |= {"unlabelled": len(unlabelled), "self_taught": fitted.self_taught}
        found["self_trained_svm"] = self_trained_svm(texts, unlabelled)
    if fitted.without is not None:
        without = fitted.without.member_logits(texts.test_texts)
        found["without"] = _accuracy(without.sum(0), texts)
        found["without_members"] = [_accuracy(logits, texts) for logits in without]
    if fitted.teacher is not None:
        found["teacher"] = _accuracy(members.sum(0), texts)
        found["teacher_milliseconds"] = fitted.all_members_latency.p50
    return found


def pretrained_model(corpus: str) -> Path:
    """A model that PRETRAINING has made of a corpus, by the command: now, or earlier in the cache folder."""
    identity = {"corpus": open_corpus(corpus).fingerprint, "options": PRETRAINING}
    folder = cached(f"bench/{key_of(identity)}")
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tinylm", "pretrain", "--corpus", corpus, *PRETRAINING.split()]
        subprocess.run([*command, "--out", str(folder)], check=True)
    return folder


def _corpus(minutes: float) -> tuple[str, str]:
    """Name and path of the text for pre-training."""
    leads = find_local(LEADS)
    if leads is None:
        return "vital", "vital"
    return (LEADS, str(leads)) if minutes < HOUR else (ALL_TEXT, str(leads.parent))


def _accuracy(logits: np.ndarray, task: Task) -> float:
    return float(np.mean(logits.argmax(1) == task.test_labels))


def summary(name: str, splits: Sequence[Split]) -> Measured:
    """The row of a case: ours, the strong linear model and fastText on its splits."""
    columns = ("accuracy", "linear_svm", "fasttext")
    wrong = np.array([[100 * (1 - one[column]) for column in columns] for one in splits])
    return summarise(name, wrong, WRONG, None, "fastText", {"splits": list(splits)})


def read_splits(file: Path) -> Splits:
    """The splits in a record of this suite.

    Raises:
        UserError: it is not one.
    """
    record = read_json(file)
    if record.get("settings", {}).get("suite") != "accuracy":
        raise UserError(f"{file} is not a record of the suite accuracy; expected one, or a new file.")
    found: Splits = {}
    for result in record["results"]:
        details = result["details"]
        # Where the record is of a time when all its splits came from one machine and one text.
        shared = {name: record["machine"].get(name) for name in ("processor", "cores")}
        shared["corpus"] = details.get("corpus")
        found[result["name"]] = {one["seed"] - FIRST_SEED: shared | one for one in details["splits"]}
    return found
