"""Labelled texts with a fixed train and test split: the paper's three tasks, `vital-topics`, own files.

A task is small (at most some 100,000 short texts) and lives in memory. Which rows are drawn depends on
the seed and on the label's own rows alone, so the rows of a label are the same in every subset of labels.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.text.datasets import DATASETS, TextsByLabel, vital_titles
from tinylm.text.labelled import Labelled, read_labelled, targets_of
from tinylm.text.tables import file_format


@dataclass(frozen=True)
class Task:
    """Texts to classify.

    Attributes:
        name: as given to `load_task`.
        label_names: names of the labels, in the order of their numbers 0, 1, ...
        train_texts: texts to fine-tune on, grouped by label.
        train_labels: `int64 [train texts]`.
        test_texts: texts to measure accuracy on, grouped by label.
        test_labels: `int64 [test texts]`.
        unusable: reason -> rows of the files that were left out.
        notes: sentences on labels with fewer rows than requested.
        fingerprint: hash of the labels and texts, so of files, seed and sizes together.
        test_titles: titles of articles that pre-training must not see.
    """

    name: str
    label_names: list[str]
    train_texts: list[str]
    train_labels: np.ndarray
    test_texts: list[str]
    test_labels: np.ndarray
    unusable: dict[str, int]
    notes: list[str]
    fingerprint: str
    test_titles: frozenset[str] = frozenset()


def load_task(
    name: str | Path,
    *,
    labels: Sequence[int] | None = None,
    train_per_label: int | None = None,
    test_per_label: int | None = None,
    seed: int = 42,
    text_column: str | Sequence[str] = "text",
    label_column: str = "label",
    test_file: Path | None = None,
    test_share: float = 0.2,
) -> Task:
    """Load a classification task.

    Args:
        name: one of
            `fewrel`: 64 relations in alphabetical order of their ids, 630 and 70 sentences each
            (Tables 1 to 4), of a relation with fewer rows 70 test rows and the rest for training;
            `agnews`: 4 topics, 1,000 and 1,000 each (Table 5);
            `dbpedia`: 14 classes, 100 and 100 each (Table 6);
            `vital-topics`: 11 topics of the `vital` corpus, 100 and 100 articles each;
            the path of a table with a text and a label column (`tinylm.text.tables.read_rows`). The
            official files are looked for in `$TINYLM_DATA` and the cache folder, or else downloaded.
        labels: only these label numbers, which become 0, 1, ... in the order given. All by default.
        train_per_label: training rows of each label; of a table, all that are not test rows.
        test_per_label: test rows of each label; of a table, all rows of `test_file` or `test_share`.
        seed: of the shuffles that choose the rows.
        text_column: column of the table that holds the text, or several, which are joined.
        label_column: column of the table that holds the label, a string or number.
        test_file: table with the test rows. Otherwise they are split off, label by label.
        test_share: share of each label's rows that becomes test rows then.

    Raises:
        UserError: an unknown task, a missing or damaged file, a wrong column, fewer than two labels, a
            label number out of range, or a label without training or test rows.
    """
    known = DATASETS.get(str(name))
    if known:
        rows = known.read()
        train_per_label = known.train_per_label if train_per_label is None else train_per_label
        test_per_label = known.test_per_label if test_per_label is None else test_per_label
    elif file_format(Path(name)):
        rows = _read_table(Path(name), test_file, text_column, label_column)
    else:
        raise UserError(
            f"There is no task {str(name)!r}; expected {', '.join(DATASETS)} or a labelled table."
        )
    for option, count in {"train_per_label": train_per_label, "test_per_label": test_per_label}.items():
        if count is not None and count < 1:
            raise UserError(f"{option} is {count}; expected at least 1.")
    if not 0 < test_share < 1:
        raise UserError(f"test_share is {test_share}; expected a number between 0 and 1.")

    notes: list[str] = []
    numbers = _check_labels(labels, rows, str(name))
    label_names = [rows.label_names[number] for number in numbers]
    train: list[list[str]] = []
    test: list[list[str]] = []
    for number in numbers:
        if rows.test is None:
            # In a published data set a row is a row, as in the paper; elsewhere copies follow their text.
            pool, test_pool = _split(rows.train[number], test_per_label, test_share, seed, bool(known))
        else:
            pool, test_pool = _shuffled(rows.train[number], seed), _shuffled(rows.test[number], seed)
        train.append(pool)
        test.append(test_pool)
    if not known:
        tested = {copy_key(text) for texts in test for text in texts}
        kept = [[text for text in texts if copy_key(text) not in tested] for texts in train]
        if copies := sum(map(len, train)) - sum(map(len, kept)):
            notes.append(f"{copies:,} training rows are copies of test texts and were left out.")
        train = kept
    for place, label in enumerate(label_names):
        train[place] = _first(train[place], train_per_label, f"training rows of label {label!r}", notes)
        test[place] = _first(test[place], test_per_label, f"test rows of label {label!r}", notes)

    hashed = hashlib.sha256(json.dumps([label_names, train, test]).encode())
    test_texts = [text for texts in test for text in texts]
    return Task(
        name=str(name),
        label_names=label_names,
        train_texts=[text for texts in train for text in texts],
        train_labels=np.repeat(np.arange(len(numbers)), [len(texts) for texts in train]),
        test_texts=test_texts,
        test_labels=np.repeat(np.arange(len(numbers)), [len(texts) for texts in test]),
        unusable=dict(rows.unusable),
        notes=notes,
        fingerprint=hashed.hexdigest()[:16],
        test_titles=vital_titles(test_texts) if name == "vital-topics" else frozenset(),
    )


def hold_out(task: Task, train_per_label: int, share: float = 0) -> tuple[Task, list[str], np.ndarray]:
    """Keep the first training rows of each label and set the others aside, for validation.

    Args:
        task: its training rows are grouped by label.
        train_per_label: training rows of each label, at most.
        share: of each label's rows, at least this share is set aside.

    Returns:
        The task with at most `train_per_label` training rows of each label, and the texts and
        labels (`int64`) of the rows that are left over.
    """
    counts = np.bincount(task.train_labels)
    number_in_label = np.concatenate([np.arange(count) for count in counts])
    kept = np.minimum(train_per_label, np.round((1 - share) * counts))[task.train_labels]
    learn, held = np.flatnonzero(number_in_label < kept), np.flatnonzero(number_in_label >= kept)
    smaller = replace(
        task,
        train_texts=[task.train_texts[i] for i in learn],
        train_labels=task.train_labels[learn],
        fingerprint=f"{task.fingerprint}-{train_per_label}" + (f"-{share}" if share else ""),
    )
    return smaller, [task.train_texts[i] for i in held], task.train_labels[held]


def _check_labels(labels: Sequence[int] | None, rows: TextsByLabel, task: str) -> list[int]:
    n_labels = len(rows.label_names)
    numbers = list(range(n_labels) if labels is None else labels)
    for number in numbers:
        if not 0 <= number < n_labels:
            raise UserError(f"Label {number} is out of range; {task} has the labels 0 to {n_labels - 1}.")
    if len(set(numbers)) < len(numbers):
        raise UserError(f"A label is named twice in {numbers}.")
    if len(numbers) < 2:
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in rows.unusable.items())
        rest = f" (rows left out: {left_out})" if left_out else ""
        raise UserError(f"{task} has {len(numbers)} label(s) to choose from{rest}; expected at least two.")
    return numbers


def _split(
    texts: list[str], test_rows: int | None, test_share: float, seed: int, copies_apart: bool
) -> tuple[list[str], list[str]]:
    """The training and the test part of a label's rows."""
    copies = ([row] for row in range(len(texts))) if copies_apart else copies_of(texts).values()
    distinct = _shuffled(list(copies), seed)
    count = test_rows or max(1, round(test_share * len(distinct)))
    first_test = max(len(distinct) - count, 0)
    train, test = (
        [texts[row] for rows in part for row in rows]
        for part in (distinct[:first_test], distinct[first_test:])
    )
    return train, test


def _shuffled(rows: list[Any], seed: int) -> list[Any]:
    # A generator of its own, so that a label's rows do not depend on the other labels.
    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]


def _first(texts: list[str], count: int | None, what: str, notes: list[str]) -> list[str]:
    """The first `count` texts, with a note where there are fewer."""
    if not texts:
        known = f" {' '.join(notes)}" if notes else ""
        raise UserError(f"There are no {what}; give more rows or leave the label out.{known}")
    if count and len(texts) < count:
        notes.append(f"There are {len(texts)} {what} where {count} were requested.")
    return texts[:count]


def _read_table(
    path: Path, test_path: Path | None, text_columns: str | Sequence[str], label_column: str
) -> TextsByLabel:
    train = _read_one_label_each(path, text_columns, label_column)
    # Numbers in the order of numbers: 2 before 10.
    names = sorted(map(str, train.names), key=lambda name: (int(name) if name.isdecimal() else -1, name))
    by_label = _by_label(train, names)
    if test_path is None:
        return TextsByLabel(names, by_label, None, Counter(train.unusable))
    test = _read_one_label_each(test_path, text_columns, label_column)
    unusable = Counter(train.unusable) + Counter(test.unusable)
    return TextsByLabel(names, by_label, _by_label(test, names), unusable)


def _read_one_label_each(path: Path, text_columns: str | Sequence[str], label_column: str) -> Labelled:
    labelled = read_labelled(str(path), text_columns, label_column)
    if labelled.several:
        raise UserError(f"{path} has several labels per text; in a task every text has one.")
    return labelled


def _by_label(labelled: Labelled, names: Sequence[str]) -> list[list[str]]:
    by_label: list[list[str]] = [[] for _ in names]
    for text, number in zip(labelled.texts, targets_of(labelled, names).tolist(), strict=True):
        by_label[number].append(text)
    return by_label


@dataclass(frozen=True)
class Split:
    """Rows (`int64`) of the labelled texts for training and for validation."""

    train: np.ndarray
    validation: np.ndarray


def split_rows(texts: Sequence[str], targets: np.ndarray, share: float, seed: int) -> Split:
    """Split labelled texts into a training and a validation part, label by label.

    Distinct texts are split, and copies of a text follow it: none is in both parts, and a label whose
    rows were copied is validated like any other. A label keeps at least one row for training, so one
    that occurs once is not validated. Of texts with several labels the rarest label decides.

    Args:
        texts: all texts.
        targets: `int64 [texts]`, or `float32 [texts, labels]` of 0 and 1 for several labels per text.
        share: of the distinct texts that becomes the validation part.
        seed: of the draw.
    """
    random = np.random.default_rng([seed, 1])
    copies = copies_of(texts)
    several = targets.ndim == 2
    counts = targets.sum(0) if several else np.bincount(targets)
    if several:
        frequency = np.where(targets > 0, counts, np.inf)
        label = np.where(targets.any(1), frequency.argmin(1), -1)
        frequency = frequency.min(1)
    else:
        label, frequency = targets, counts[targets]
    group = np.array([label[min(rows, key=frequency.__getitem__)] for rows in copies.values()])
    chosen = np.zeros(len(copies), bool)
    for each in np.unique(group):
        places = random.permutation(np.flatnonzero(group == each))
        # Rounded up or down by chance, so that many small labels give the right share together.
        count = min(int(share * len(places) + random.random()), len(places) - 1)
        chosen[places[:count]] = True
    held_out = np.zeros(len(texts), bool)
    for rows in itertools.compress(copies.values(), chosen):
        held_out[rows] = True
    # A label that shares all of its texts with rarer ones can have lost them all.
    kept = targets[~held_out]
    left = kept.sum(0) if several else np.bincount(kept, minlength=len(counts))
    for lost in np.flatnonzero((counts > 0) & (left == 0)):
        row = np.flatnonzero(targets[:, lost] if several else targets == lost)[0]
        held_out[copies[copy_key(texts[row])]] = False
    return Split(np.flatnonzero(~held_out), np.flatnonzero(held_out))


def split_off(labelled: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Split labelled texts into a training and a test part, as `split_rows` does.

    Args:
        labelled: the texts, with a label each or a list of labels each.
        share: of each label's distinct texts that becomes test rows, between 0 and 1.
        seed: of the draw.

    Returns:
        Both parts; the counts of rows that were left out in reading stay with each.
    """
    split = split_rows(labelled.texts, targets_of(labelled, labelled.names), share, seed)
    return labelled.part(split.train), labelled.part(split.validation)


def without_copies(labelled: Labelled, of: Sequence[str]) -> Labelled:
    """The rows whose text is not among those of another part; the others are counted as left out."""
    keys = set(map(copy_key, of))
    kept = [row for row, text in enumerate(labelled.texts) if copy_key(text) not in keys]
    if len(kept) == len(labelled.texts):
        return labelled
    left_out = {"copies of test texts": len(labelled.texts) - len(kept)}
    return replace(labelled.part(kept), unusable=labelled.unusable | left_out)


def copies_of(texts: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each distinct text, in the order of their first ones."""
    copies: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        copies.setdefault(copy_key(text), []).append(row)
    return copies


def copy_key(text: str) -> str:
    """What copies of a text share: its words, whatever their case and the space between them."""
    return " ".join(text.split()).casefold()
