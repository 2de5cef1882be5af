"""Labelled texts with a fixed train and test split: the paper's three tasks, `vital-topics`, own files.

A task is small (at most some 100,000 short texts) and lives in memory. Which rows are drawn depends on
the seed and on the label's own rows alone, so the rows of a label are the same in every subset of labels.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tinylm.errors import UserError
from tinylm.text.datasets import DATASETS, TextsByLabel, vital_titles
from tinylm.text.labelled import Labelled, targets_of
from tinylm.text.tables import file_format, read_rows, why_unusable


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
        notes: sentences on labels with fewer rows than asked for.
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
    text_column: str = "text",
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
        text_column: column of the table that holds the text.
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

    train: list[list[str]] = []
    test: list[list[str]] = []
    notes: list[str] = []
    numbers = _check_labels(labels, rows, str(name))
    label_names = [rows.label_names[number] for number in numbers]
    for number, label in zip(numbers, label_names, strict=True):
        # A generator of its own, so that a label's rows do not depend on the other labels.
        pool = _shuffled(rows.train[number], seed)
        if rows.test is None:
            wanted = test_per_label or max(1, round(test_share * len(pool)))
            split = max(len(pool) - wanted, 0)
            pool, test_pool = pool[:split], pool[split:]
        else:
            test_pool = _shuffled(rows.test[number], seed)
        train.append(_first(pool, train_per_label, f"training rows of label {label!r}", notes))
        test.append(_first(test_pool, test_per_label, f"test rows of label {label!r}", notes))

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


def hold_out(task: Task, train_per_label: int) -> tuple[Task, list[str], np.ndarray]:
    """Keep the first training rows of each label and set the others aside, for validation.

    Returns:
        The task with at most `train_per_label` training rows of each label, and the texts and
        labels (`int64`) of the rows that are left over.
    """
    number_in_label = np.concatenate([np.arange(count) for count in np.bincount(task.train_labels)])
    learn = np.flatnonzero(number_in_label < train_per_label)
    held = np.flatnonzero(number_in_label >= train_per_label)
    smaller = replace(
        task,
        train_texts=[task.train_texts[i] for i in learn],
        train_labels=task.train_labels[learn],
        fingerprint=f"{task.fingerprint}-{train_per_label}",
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


def _shuffled(texts: list[str], seed: int) -> list[str]:
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]


def _first(texts: list[str], count: int | None, what: str, notes: list[str]) -> list[str]:
    """The first `count` texts, with a note where there are fewer."""
    if not texts:
        raise UserError(f"There are no {what}; give more rows or leave the label out.")
    if count and len(texts) < count:
        notes.append(f"There are {len(texts)} {what} where {count} were asked for.")
    return texts[:count]


def _read_table(path: Path, test_path: Path | None, text_column: str, label_column: str) -> TextsByLabel:
    unusable: Counter[str] = Counter()

    def read(file: Path) -> dict[str, list[str]]:
        by_label: dict[str, list[str]] = {}
        for _, row in read_rows(file, [text_column, label_column]):
            text, label = row.get(text_column), row.get(label_column)
            if label is None or why_unusable(str(label)):
                unusable["no label"] += 1
            elif reason := why_unusable(text):
                unusable[reason] += 1
            else:
                by_label.setdefault(str(label).strip(), []).append(str(text))
        return by_label

    train = read(path)
    # Numbers in the order of numbers: 2 before 10.
    names = sorted(train, key=lambda name: (int(name) if name.isdecimal() else -1, name))
    if test_path is None:
        return TextsByLabel(names, [train[name] for name in names], None, unusable)
    test = read(Path(test_path))
    if unknown := sorted(test.keys() - train.keys()):
        raise UserError(f"{test_path} has the label {unknown[0]!r}, of which {path} has no row.")
    return TextsByLabel(
        names, [train[name] for name in names], [test.get(name, []) for name in names], unusable
    )


@dataclass(frozen=True)
class Split:
    """Rows (`int64`) of the labelled texts for training and for validation."""

    train: np.ndarray
    validation: np.ndarray


def split_rows(texts: Sequence[str], targets: np.ndarray, share: float, seed: int) -> Split:
    """Split labelled texts into a training and a validation part, label by label.

    A label keeps at least one row for training, so one that occurs once is not validated.
    No text is in both parts. Of texts with several labels the rarest label decides.
    """
    random = np.random.default_rng([seed, 1])
    if targets.ndim == 2:
        frequency = np.where(targets > 0, targets.sum(0), np.inf)
        group = np.where(targets.any(1), frequency.argmin(1), -1)
    else:
        group = targets
    chosen = np.zeros(len(texts), bool)
    for label in np.unique(group):
        rows = random.permutation(np.flatnonzero(group == label))
        # Rounded up or down by chance, so that many small labels give the right share together.
        count = min(int(share * len(rows) + random.random()), len(rows) - 1)
        chosen[rows[:count]] = True
    in_training = {texts[i] for i in np.flatnonzero(~chosen).tolist()}
    chosen &= np.array([text not in in_training for text in texts])
    return Split(np.flatnonzero(~chosen), np.flatnonzero(chosen))


def split_off(labelled: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Split labelled texts into a training and a test part, as `split_rows` does.

    Args:
        labelled: the texts, with a label each or a list of labels each.
        share: of each label's rows that becomes test rows, between 0 and 1.
        seed: of the draw.

    Returns:
        Both parts; the counts of rows that were left out in reading stay with each.
    """
    names = sorted({name for label in labelled.labels for name in _listed(label)})
    split = split_rows(labelled.texts, targets_of(labelled, names, "the table"), share, seed)

    def part(rows: np.ndarray) -> Labelled:
        return replace(
            labelled, texts=[labelled.texts[i] for i in rows], labels=[labelled.labels[i] for i in rows]
        )

    return part(split.train), part(split.validation)


def _listed(label: str | list[str]) -> list[str]:
    return label if isinstance(label, list) else [label]
