"""Labelled texts out of a table, wherever it comes from: a file, standard input, the hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.text.corpus import HUB, hub_rows, open_hub
from tinylm.text.delimited import MORE
from tinylm.text.formats import class_name, class_names_of
from tinylm.text.labels import Label, by_name, is_no_label, listed, read_labels
from tinylm.text.tables import Problem, Row, Table, open_table, text_of

NO_LABEL = "no label"
SHOWN = 6  # labels that a sentence names
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")  # of a column for each label
NEITHER = ("nan", "na", "n/a", "null", "none")


@dataclass(frozen=True)
class Labelled:
    """Rows with a text and a label.

    Attributes:
        texts: the texts.
        labels: a label each, or a list of labels each; whole numbers where all are.
        unusable: reason -> rows that were left out.
        source: where they were read, for messages.
        how: what the table was taken for, in words.
        notes: sentences on labels that may be meant otherwise.
    """

    texts: list[str]
    labels: list[Any]
    unusable: dict[str, int]
    source: str = "the table"
    how: str = ""
    notes: tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        """Whether a text can have several labels."""
        return bool(self.labels) and isinstance(self.labels[0], list)

    @property
    def names(self) -> list[Label]:
        """The distinct labels: numbers in their order, then names in theirs."""
        found = {name for label in self.labels for name in listed(label)}
        return sorted(found, key=lambda name: (isinstance(name, str), name))

    def part(self, rows: Sequence[int] | np.ndarray) -> Labelled:
        """These rows alone; what is known of the whole table stays."""
        return replace(
            self, texts=[self.texts[row] for row in rows], labels=[self.labels[row] for row in rows]
        )

    def in_words(self) -> str:
        """What was read, in a sentence or two."""
        counted = Counter(name for label in self.labels for name in listed(label)).most_common()
        shown = ", ".join(f"{name} ({count:,})" for name, count in counted[:SHOWN])
        more = f" and {len(counted) - SHOWN:,} more" if len(counted) > SHOWN else ""
        texts, labels = _counted(len(self.texts), "text"), _counted(len(counted), "label")
        found = f"{texts} with {labels}{', several per text' if self.several else ''}: {shown}{more}"
        sentences = [f"{self.source}: {self.how}; {found}."]
        if self.unusable:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.unusable.items())
            sentences.append(f"Rows left out: {reasons}.")
        if MORE in self.unusable:
            sentences.append("A text that holds the delimiter must stand in quotes.")
        return " ".join([*sentences, *self.notes])


def open_rows(
    source: str,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    encoding: str | None = None,
    as_it_comes: bool = False,
) -> Table:
    """Open a table wherever it is.

    Args:
        source: a file, a folder of files or `-` for standard input (see `open_table`), or `hf:NAME`,
            `hf:NAME:CONFIG`, `hf:NAME:CONFIG:SPLIT` for a data set on the HuggingFace hub, by default
            its train split.
        required: columns that must be there, that of the text first.
        optional: columns to read if they exist.
        encoding: see `open_table`.
        as_it_comes: see `open_table`.

    Raises:
        UserError: nothing there, a damaged file, a missing column.
    """
    if not source.startswith(HUB):
        return open_table(source, required, optional, encoding=encoding, as_it_comes=as_it_comes)
    dataset, config, split = (source.removeprefix(HUB).split(":") + ["", ""])[:3]
    stream, _ = open_hub(dataset, config or None, split or "train", required)
    classes = {
        column: names
        for column, feature in (stream.features or {}).items()
        if (names := class_names_of(feature))
    }

    def rows() -> Iterator[Row]:
        for number, row in enumerate(hub_rows(dataset, stream), 1):
            yield Row(number, row | {name: class_name(row[name], names) for name, names in classes.items()})

    return Table(source, "data set on the hub", rows())


def read_labelled(
    source: str,
    text: str | Sequence[str],
    label: str | Sequence[str],
    separator: str | None = None,
    encoding: str | None = None,
) -> Labelled:
    """Read all labelled texts of a table into memory.

    Args:
        source: see `open_rows`.
        text: column that holds the text, or several, which are joined with a space.
        label: column that holds the label or a list of labels, or several columns of 0 and 1, each of
            which is named as its label.
        separator: between several labels in one cell; lists need none.
        encoding: see `open_table`.

    Raises:
        UserError: see `open_rows`; no usable row; one label and a list of labels side by side; a column of
            0 and 1 that holds something else.
    """
    text_columns, label_columns = _columns(text), _columns(label)
    table = open_rows(source, [*text_columns, *label_columns], encoding=encoding)
    found: list[tuple[int, str, Any]] = []
    unusable: Counter[str] = Counter()
    for row in table:
        words = text_of(row, text_columns)
        if isinstance(words, Problem):
            unusable[words.reason] += 1
        elif is_no_label(value := _label_in(table, row, label_columns)):
            unusable[NO_LABEL] += 1
        else:
            found.append((row.number, words, value))
    labels, notes = read_labels([value for _, _, value in found], separator)
    if None in labels:  # NaN among numbers
        unusable[NO_LABEL] += labels.count(None)
        found = [row for row, label in zip(found, labels, strict=True) if label is not None]
        labels = [label for label in labels if label is not None]
    if not found:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in unusable.items()) or "no rows"
        raise UserError(f"{table.name} has no usable row ({reasons}).")
    if table.labels_in_lists and all(len(label) == 1 for label in labels):
        labels = [label[0] for label in labels]
    for (number, _, _), label in zip(found, labels, strict=True):
        if isinstance(label, list) != isinstance(labels[0], list):
            raise UserError(
                f"{table.name}, row {number} has {'a list' if isinstance(label, list) else 'one label'}"
                " where earlier rows have not; give every row one label, or a list."
            )
    texts = [words for _, words, _ in found]
    return Labelled(texts, labels, dict(unusable), table.name, table.how, tuple(notes))


def read_texts(source: str, text: str | Sequence[str], encoding: str | None = None) -> list[str]:
    """The usable texts of a table, read into memory; arguments as of `read_labelled`.

    Raises:
        UserError: there is none.
    """
    columns = _columns(text)
    table = open_rows(source, columns, encoding=encoding)
    found = [text_of(row, columns) for row in table]
    texts = [words for words in found if isinstance(words, str)]
    if not texts:
        unusable = Counter(words.reason for words in found if isinstance(words, Problem))
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in unusable.items())
        raise UserError(f"{table.name} has no usable text ({reasons or 'no rows'}).")
    return texts


def targets_of(labelled: Labelled, label_names: Sequence[Label]) -> np.ndarray:
    """The labels as numbers, as a committee with these labels counts them.

    Returns:
        `int64 [texts]`, or `float32 [texts, labels]` of 0 and 1 for several labels per text.

    Raises:
        UserError: a label that is not among them.
    """
    find = by_name(label_names)
    if unknown := {name for name in labelled.names if find(name) is None}:
        names = [str(name) for name in label_names]
        more = f" (and {len(unknown) - 1:,} more)" if len(unknown) > 1 else ""
        raise UserError(
            f"{labelled.source} has the label {str(min(unknown, key=str))!r}{more}; expected one of"
            f" {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}."
        )
    targets = np.zeros((len(labelled.texts), len(label_names)), np.float32)
    for row, label in enumerate(labelled.labels):
        for name in listed(label):
            targets[row, find(name)] = 1
    return targets if labelled.several else targets.argmax(1)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _columns(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _label_in(table: Table, row: Row, columns: Sequence[str]) -> Any:
    """What a row has as its label: a cell, or the names of the columns that hold 1."""
    if len(columns) > 1:
        return _marked(table, row, columns)
    value = row.get(columns[0])
    if isinstance(value, dict):
        raise UserError(
            f"{table.name}, row {row.number}, column {columns[0]!r} is an object; name one of its entries"
            f" as {columns[0]}.{next(iter(value), 'name')}."
        )
    return value


def _marked(table: Table, row: Row, columns: Sequence[str]) -> list[str] | None:
    marked = []
    for column in columns:
        value = row.get(column)
        if is_no_label(value) or str(value).strip().lower() in NEITHER:
            return None
        if str(value).strip().lower() in YES:
            marked.append(column)
        elif str(value).strip().lower() not in NO:
            raise UserError(
                f"{table.name}, row {row.number}, column {column!r} is {value!r}; expected 0 or 1 where each"
                " label has a column."
            )
    return marked
