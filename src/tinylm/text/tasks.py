"""Labelled texts with a fixed train and test split: the paper's three tasks, `vital-topics`, own files.

A task is small (at most some 100,000 short texts) and lives in memory. Which rows are drawn depends on
the seed and on the label's own rows alone, so the rows of a label are the same in every subset of labels.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.system.download import fetch
from tinylm.system.paths import find_local
from tinylm.text.corpus import read_vital
from tinylm.text.labelled import Labelled, targets_of
from tinylm.text.tables import file_format, read_rows, why_unusable

# Address and checksum of the official files, by their place in a data folder.
DOWNLOADS = {
    "fewrel/train_wiki.json": (
        "https://raw.githubusercontent.com/thunlp/FewRel/master/data/train_wiki.json",
        "md5:5e663e9c3f1bfbdb2de72696e9504fd7",
    ),
    "fewrel/pid2name.json": (
        "https://raw.githubusercontent.com/thunlp/FewRel/master/data/pid2name.json",
        "md5:0fe4c5a197c83668d1c7ef255cba5474",
    ),
    "ag_news/train.csv": (
        "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/train.csv",
        "md5:b1a00f826fdfbd249f79597b59e1dc12",
    ),
    "ag_news/test.csv": (
        "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/test.csv",
        "md5:d52ea96a97a2d943681189a97654912d",
    ),
    "dbpedia/dbpedia_csv.tgz": (
        "https://s3.amazonaws.com/fast-ai-nlp/dbpedia_csv.tgz",
        "md5:239c7837b9e79db34486f3de6a00e38e",
    ),
}

AG_NEWS_LABELS = ("World", "Sports", "Business", "Sci/Tech")
DBPEDIA_LABELS = (
    "Company",
    "EducationalInstitution",
    "Artist",
    "Athlete",
    "OfficeHolder",
    "MeanOfTransportation",
    "Building",
    "NaturalPlace",
    "Village",
    "Animal",
    "Plant",
    "Album",
    "Film",
    "WrittenWork",
)
NO_TOPIC = "Uncategorized"


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


@dataclass(frozen=True)
class _Rows:
    """Usable texts of each label, in file order. `test` is None where the split is ours to make."""

    label_names: list[str]
    train: list[list[str]]
    test: list[list[str]] | None
    unusable: Counter[str]


@dataclass(frozen=True)
class _Known:
    """A task that has a name: how to read it and how many rows the paper takes of each label."""

    read: Callable[[], _Rows]
    train_per_label: int
    test_per_label: int


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
    known = TASKS.get(str(name))
    if known:
        rows = known.read()
        train_per_label = known.train_per_label if train_per_label is None else train_per_label
        test_per_label = known.test_per_label if test_per_label is None else test_per_label
    elif file_format(Path(name)):
        rows = _read_table(Path(name), test_file, text_column, label_column)
    else:
        raise UserError(f"There is no task {str(name)!r}; expected {', '.join(TASKS)} or a labelled table.")
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
    titles = _titles_of(test) if name == "vital-topics" else frozenset()
    return Task(
        name=str(name),
        label_names=label_names,
        train_texts=[text for texts in train for text in texts],
        train_labels=np.repeat(np.arange(len(numbers)), [len(texts) for texts in train]),
        test_texts=[text for texts in test for text in texts],
        test_labels=np.repeat(np.arange(len(numbers)), [len(texts) for texts in test]),
        unusable=dict(rows.unusable),
        notes=notes,
        fingerprint=hashed.hexdigest()[:16],
        test_titles=titles,
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


def _check_labels(labels: Sequence[int] | None, rows: _Rows, task: str) -> list[int]:
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


def _titles_of(texts_by_label: list[list[str]]) -> frozenset[str]:
    """Titles of all articles with these texts, copies under another title included."""
    texts = {text for texts in texts_by_label for text in texts}
    return frozenset(title for title, article in read_vital().items() if article["extract"] in texts)


def _official(name: str) -> Path:
    """An official file: the user's own, the cached one, or a download."""
    return find_local(name) or fetch(*DOWNLOADS[name], name)


def _read_fewrel() -> _Rows:
    path = _official("fewrel/train_wiki.json")
    relations = _read_json(path)
    names = _read_json(_official("fewrel/pid2name.json"))
    unusable: Counter[str] = Counter()
    # The paper's label numbers: Table 1's T_FR fits in alphabetical order only, not in file order.
    ids = sorted(relations)
    by_label: list[list[str]] = []
    for relation in ids:
        texts = []
        for number, row in enumerate(relations[relation], start=1):
            try:
                text = " ".join(row["tokens"])
            except (TypeError, KeyError) as error:
                raise UserError(
                    f"{path}, relation {relation}, row {number} has no list of tokens."
                ) from error
            if _usable(text, unusable):
                texts.append(text)
        by_label.append(texts)
    label_names = [names[relation][0] if relation in names else relation for relation in ids]
    return _Rows(label_names, by_label, None, unusable)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is no JSON file: {error}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} is empty; expected an object with relation ids such as 'P17' as keys.")
    return content


def _read_agnews() -> _Rows:
    unusable: Counter[str] = Counter()
    train, test = (
        _read_official_csv(_official(f"ag_news/{part}.csv"), len(AG_NEWS_LABELS), unusable)
        for part in ("train", "test")
    )
    return _Rows(list(AG_NEWS_LABELS), train, test, unusable)


def _read_dbpedia() -> _Rows:
    unusable: Counter[str] = Counter()
    train, test = (
        _read_official_csv(_dbpedia_file(f"{part}.csv"), len(DBPEDIA_LABELS), unusable)
        for part in ("train", "test")
    )
    return _Rows(list(DBPEDIA_LABELS), train, test, unusable)


def _dbpedia_file(name: str) -> Path:
    """A file of DBpedia-14, unpacked from the downloaded archive if need be."""
    if found := find_local(f"dbpedia/{name}"):
        return found
    archive_name = "dbpedia/dbpedia_csv.tgz"
    archive = fetch(*DOWNLOADS[archive_name], archive_name)
    target = archive.with_name(name)
    partial = archive.with_name(name + ".partial")
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"dbpedia_csv/{name}")
        assert member is not None  # the archive's checksum has been verified
        with member, partial.open("wb") as file:
            shutil.copyfileobj(member, file)
    return partial.rename(target)


def _read_official_csv(path: Path, n_labels: int, unusable: Counter[str]) -> list[list[str]]:
    """Rows `class, title, description` without a header; classes count from 1, titles may be empty."""
    columns = ("class", "title", "description")
    by_label: list[list[str]] = [[] for _ in range(n_labels)]
    for number, row in read_rows(path, columns, header=columns):
        label, title, description = (row[column] for column in columns)
        if not str(label).isdecimal() or not 1 <= int(label) <= n_labels:
            raise UserError(f"{path}, row {number} has the class {label!r}; expected 1 to {n_labels}.")
        text = f"{title or ''} {description or ''}".strip()
        if _usable(text, unusable):
            by_label[int(label) - 1].append(text)
    return by_label


def _read_vital_topics() -> _Rows:
    unusable: Counter[str] = Counter()
    by_topic: dict[str, list[str]] = {}
    for article in read_vital().values():
        if article["topic"] == NO_TOPIC:
            unusable["no label"] += 1
        elif _usable(article["extract"], unusable):
            by_topic.setdefault(article["topic"], []).append(article["extract"])
    topics = sorted(by_topic)
    return _Rows(topics, [by_topic[topic] for topic in topics], None, unusable)


def _read_table(path: Path, test_path: Path | None, text_column: str, label_column: str) -> _Rows:
    unusable: Counter[str] = Counter()

    def read(file: Path) -> dict[str, list[str]]:
        by_label: dict[str, list[str]] = {}
        for _, row in read_rows(file, [text_column, label_column]):
            text, label = row.get(text_column), row.get(label_column)
            if label is None or why_unusable(str(label)):
                unusable["no label"] += 1
            elif _usable(text, unusable):
                by_label.setdefault(str(label).strip(), []).append(str(text))
        return by_label

    train = read(path)
    # Numbers in the order of numbers: 2 before 10.
    names = sorted(train, key=lambda name: (int(name) if name.isdecimal() else -1, name))
    if test_path is None:
        return _Rows(names, [train[name] for name in names], None, unusable)
    test = read(Path(test_path))
    if unknown := sorted(test.keys() - train.keys()):
        raise UserError(f"{test_path} has the label {unknown[0]!r}, of which {path} has no row.")
    return _Rows(names, [train[name] for name in names], [test.get(name, []) for name in names], unusable)


def _usable(text: object, unusable: Counter[str]) -> bool:
    reason = why_unusable(text)
    if reason:
        unusable[reason] += 1
    return reason is None


TASKS = {
    "fewrel": _Known(_read_fewrel, train_per_label=630, test_per_label=70),
    "agnews": _Known(_read_agnews, train_per_label=1000, test_per_label=1000),
    "dbpedia": _Known(_read_dbpedia, train_per_label=100, test_per_label=100),
    "vital-topics": _Known(_read_vital_topics, train_per_label=100, test_per_label=100),
}


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


def split_off(labelled: Labelled, share: float, seed: Any) -> tuple[Labelled, Labelled]:
    names = sorted({name for label in labelled.labels for name in _listed(label)})
    split = split_rows(labelled.texts, targets_of(labelled, names, "the table"), share, int(seed or 0))

    def part(rows: np.ndarray) -> Labelled:
        return replace(
            labelled, texts=[labelled.texts[i] for i in rows], labels=[labelled.labels[i] for i in rows]
        )

    return part(split.train), part(split.validation)


def _listed(label: Any) -> list[Any]:
    return label if isinstance(label, list) else [label]
