"""Labelled texts out of a table, wherever it comes from: a file, standard input, the hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.text.corpus import HUB, hub_rows, open_hub
from tinylm.text.tables import STDIN, Row, read_rows, read_stdin, why_unusable


@dataclass(frozen=True)
class Labelled:
    """Rows with a text and a label.

    Attributes:
        texts: the texts.
        labels: a label each, or a list of labels each.
        unusable: reason -> rows that were left out.
    """

    texts: list[str]
    labels: list[Any]
    unusable: dict[str, int]


def rows_of(source: str, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Rows of a table with their numbers, from 1, one after the other.

    Args:
        source: a file (see `read_rows`), `-` for standard input, or `hf:NAME`, `hf:NAME:CONFIG`,
            `hf:NAME:CONFIG:SPLIT` for a data set on the HuggingFace hub, by default its train split.
        columns: that must be there.

    Raises:
        UserError: nothing there, a damaged file, a missing column.
    """
    if source == STDIN:
        yield from read_stdin(columns)
    elif source.startswith(HUB):
        dataset, config, split = (source.removeprefix(HUB).split(":") + ["", ""])[:3]
        stream, _ = open_hub(dataset, config or None, split or "train", columns)
        # Numbers of a column of classes stand for names, which the data set knows.
        named = {
            name: feature.names
            for name, feature in (stream.features or {}).items()
            if getattr(feature, "names", None) and name in columns
        }
        for number, row in enumerate(hub_rows(dataset, stream), 1):
            for name, names in named.items():
                if isinstance(row[name], int) and row[name] >= 0:
                    row[name] = names[row[name]]
            yield number, row
    else:
        yield from read_rows(Path(source), columns)


def read_labelled(source: str, text_column: str, label_column: str, separator: str | None = None) -> Labelled:
    """Read all labelled texts of a table into memory.

    Args:
        source: see `rows_of`.
        text_column: column that holds the text.
        label_column: column that holds the label, or several.
        separator: between several labels in one cell; lists, in JSONL and parquet, need none.

    Raises:
        UserError: see `rows_of`; no usable row; one label and a list of labels side by side.
    """
    texts: list[str] = []
    labels: list[Any] = []
    unusable: Counter[str] = Counter()
    for number, row in rows_of(source, [text_column, label_column]):
        text, label = row.get(text_column), row.get(label_column)
        if reason := why_unusable(text):
            unusable[reason] += 1
            continue
        if separator is not None and isinstance(label, str):
            label = [part for part in label.split(separator) if part.strip()]
        parts = label if isinstance(label, list) else [label]
        if any(part is None or why_unusable(str(part)) for part in parts):
            unusable["no label"] += 1
            continue
        names = [str(part).strip() for part in parts]
        if labels and isinstance(labels[0], list) != isinstance(label, list):
            raise UserError(
                f"{source}, row {number} has {'a list' if isinstance(label, list) else 'one'}"
                " where earlier rows have not; give every row one label, or a list."
            )
        texts.append(str(text))
        labels.append(names if isinstance(label, list) else names[0])
    if not texts:
        found = ", ".join(f"{count:,} {reason}" for reason, count in unusable.items()) or "no rows"
        raise UserError(f"{source} has no usable row ({found}).")
    return Labelled(texts, labels, dict(unusable))


def read_texts(source: str, text_column: str) -> list[str]:
    """The usable texts of a table, read into memory; see `rows_of`.

    Raises:
        UserError: there is none.
    """
    texts = [
        str(row[text_column])
        for _, row in rows_of(source, [text_column])
        if why_unusable(row.get(text_column)) is None
    ]
    if not texts:
        raise UserError(f"{source} has no usable text.")
    return texts


def targets_of(labelled: Labelled, label_names: Sequence[str], source: str) -> np.ndarray:
    """The labels as numbers, as a committee with these labels counts them.

    Returns:
        `int64 [texts]`, or `float32 [texts, labels]` of 0 and 1 for several labels per text.

    Raises:
        UserError: a label that is not among them.
    """
    number_of = {name: number for number, name in enumerate(label_names)}
    several = isinstance(labelled.labels[0], list)
    targets = np.zeros((len(labelled.texts), len(label_names)), np.float32)
    for row, label in enumerate(labelled.labels):
        for name in label if several else [label]:
            if name not in number_of:
                raise UserError(
                    f"{source} has the label {name!r}, which the model does not know; it knows"
                    f" {', '.join(label_names[:20])}{', ...' if len(label_names) > 20 else ''}."
                )
            targets[row, number_of[name]] = 1
    return targets if several else targets.argmax(1)
