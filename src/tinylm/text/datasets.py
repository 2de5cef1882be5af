"""Data sets as they are published: FewRel, AG News, DBpedia, and the topics of `vital`.

Each reader gives the usable texts of each label, in the order of the files; `tasks` makes splits of them.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinylm.errors import UserError
from tinylm.system.download import fetch
from tinylm.system.files import new_file
from tinylm.system.paths import find_local
from tinylm.text.corpus import read_vital
from tinylm.text.tables import read_rows, why_unusable

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
class TextsByLabel:
    """The usable texts of a data set.

    Attributes:
        label_names: names of the labels, in the order of their numbers.
        train: the texts of each label, in file order.
        test: likewise; None where the data set has no test part of its own.
        unusable: reason -> rows that were left out.
    """

    label_names: list[str]
    train: list[list[str]]
    test: list[list[str]] | None
    unusable: Counter[str]


@dataclass(frozen=True)
class Dataset:
    """A data set that has a name: how to read it, and how many rows the paper takes of each label."""

    title: str
    read: Callable[[], TextsByLabel]
    train_per_label: int
    test_per_label: int


def read_fewrel() -> TextsByLabel:
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
    return TextsByLabel(label_names, by_label, None, unusable)


def read_agnews() -> TextsByLabel:
    unusable: Counter[str] = Counter()
    train, test = (
        _read_official_csv(_official(f"ag_news/{part}.csv"), len(AG_NEWS_LABELS), unusable)
        for part in ("train", "test")
    )
    return TextsByLabel(list(AG_NEWS_LABELS), train, test, unusable)


def read_dbpedia() -> TextsByLabel:
    unusable: Counter[str] = Counter()
    train, test = (
        _read_official_csv(_dbpedia_file(f"{part}.csv"), len(DBPEDIA_LABELS), unusable)
        for part in ("train", "test")
    )
    return TextsByLabel(list(DBPEDIA_LABELS), train, test, unusable)


def read_vital_topics() -> TextsByLabel:
    unusable: Counter[str] = Counter()
    by_topic: dict[str, list[str]] = {}
    for article in read_vital().values():
        if article["topic"] == NO_TOPIC:
            unusable["no label"] += 1
        elif _usable(article["extract"], unusable):
            by_topic.setdefault(article["topic"], []).append(article["extract"])
    topics = sorted(by_topic)
    return TextsByLabel(topics, [by_topic[topic] for topic in topics], None, unusable)


def vital_titles(texts: Sequence[str]) -> frozenset[str]:
    """Titles of all `vital` articles with these texts, copies under another title included."""
    wanted = set(texts)
    return frozenset(title for title, article in read_vital().items() if article["extract"] in wanted)


DATASETS = {
    "fewrel": Dataset("FewRel", read_fewrel, train_per_label=630, test_per_label=70),
    "agnews": Dataset("AG News", read_agnews, train_per_label=1000, test_per_label=1000),
    "dbpedia": Dataset("DBpedia", read_dbpedia, train_per_label=100, test_per_label=100),
    "vital-topics": Dataset(
        "topics of Wikipedia articles", read_vital_topics, train_per_label=100, test_per_label=100
    ),
}


def _official(name: str) -> Path:
    """An official file: the user's own, the cached one, or a download."""
    return find_local(name) or fetch(*DOWNLOADS[name], name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} is empty; expected an object with relation ids such as 'P17' as keys.")
    return content


def _dbpedia_file(name: str) -> Path:
    """A file of DBpedia-14, unpacked from the downloaded archive if necessary."""
    if found := find_local(f"dbpedia/{name}"):
        return found
    archive_name = "dbpedia/dbpedia_csv.tgz"
    archive = fetch(*DOWNLOADS[archive_name], archive_name)
    target = archive.with_name(name)
    with tarfile.open(archive) as tar, new_file(target) as temporary:
        member = tar.extractfile(f"dbpedia_csv/{name}")
        assert member is not None  # the archive's checksum has been verified
        with member, temporary.open("wb") as file:
            shutil.copyfileobj(member, file)
    return target


def _read_official_csv(path: Path, n_labels: int, unusable: Counter[str]) -> list[list[str]]:
    """Rows `class, title, description` without a header; classes count from 1, titles may be empty."""
    columns = ("class", "title", "description")
    by_label: list[list[str]] = [[] for _ in range(n_labels)]
    for row in read_rows(path, columns, header=columns):
        label, title, description = (row.get(column) for column in columns)
        if not str(label).isdecimal() or not 1 <= int(label) <= n_labels:
            raise UserError(f"{path}, row {row.number} has the class {label!r}; expected 1 to {n_labels}.")
        text = f"{title or ''} {description or ''}".strip()
        if _usable(text, unusable):
            by_label[int(label) - 1].append(text)
    return by_label


def _usable(text: object, unusable: Counter[str]) -> bool:
    reason = why_unusable(text)
    if reason:
        unusable[reason] += 1
    return reason is None
