"""Columns of texts and labels as people have them: lists, arrays, pandas or polars columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tinylm.errors import InputError
from tinylm.text.tables import why_unusable

SHOWN = 5  # labels that a message names


def texts_of(column: Any, name: str = "X") -> list[str]:
    """The texts of a column.

    Args:
        column: a list, tuple, array `[n]` or `[n, 1]`, a pandas or polars column, or a data
            frame with a single column.
        name: what messages call it.

    Raises:
        InputError: no column, another type than strings somewhere, or text that UTF-8 cannot hold.
    """
    if isinstance(column, str | bytes) or not isinstance(column, Iterable):
        raise InputError(f"{name} is {column!r:.60}; expected a column of texts, such as a list of strings.")
    if hasattr(column, "toarray"):
        raise InputError(f"{name} is a sparse matrix; expected a column of texts.")
    shape = getattr(column, "shape", None)
    if shape is not None and len(shape) == 2:
        if shape[1] != 1:
            raise InputError(f"{name} has {shape[1]} columns; expected a single column of texts.")
        to_numpy = getattr(column, "to_numpy", None)
        column = (to_numpy() if to_numpy else np.asarray(column))[:, 0]
    elif shape is not None and len(shape) != 1:
        raise InputError(f"{name} has {len(shape)} dimensions; expected a column of texts.")
    texts = column.tolist() if isinstance(column, np.ndarray) else list(column)
    for row, text in enumerate(texts, 1):
        if why_unusable(text) in ("no text", "not UTF-8"):
            raise InputError(f"{name}, row {row} is {text!r:.60}; expected a string of Unicode.")
    return [str(text) for text in texts]


def is_multi_label(column: Any) -> bool:
    """Whether the rows of a column of labels are themselves lists of labels."""
    if isinstance(column, str | bytes) or not isinstance(column, Iterable):
        return False
    if getattr(column, "ndim", 1) != 1:
        return False
    return any(isinstance(row, list | tuple | set | frozenset | np.ndarray) for row in column)


def label_lists_of(column: Iterable[Any], name: str = "y") -> tuple[np.ndarray, np.ndarray]:
    """The labels of a column with several per row.

    Returns:
        The distinct labels, sorted, and `float32 [rows, labels]` of 0 and 1.

    Raises:
        InputError: a row that is no list, fewer than two labels, labels of several types.
    """
    rows = []
    for number, row in enumerate(column, 1):
        if not isinstance(row, list | tuple | set | frozenset | np.ndarray):
            raise InputError(f"{name}, row {number} is {row!r:.60}; the others are lists of labels.")
        rows.append(list(row))
    found = {label for row in rows for label in row}
    if len({isinstance(label, str) for label in found}) > 1:
        raise InputError(f"{name} mixes strings and numbers as labels; expected one of them.")
    labels = np.array(sorted(found))
    if len(labels) < 2:
        raise InputError(f"{name} has {len(labels)} label(s); expected at least two to choose from.")
    number_of = {label: number for number, label in enumerate(labels.tolist())}
    targets = np.zeros((len(rows), len(labels)), np.float32)
    for number, row in enumerate(rows):
        targets[number, [number_of[label] for label in row]] = 1
    return labels, targets


def data_warnings(texts: Sequence[str], labels: Sequence[Any]) -> list[str]:
    """Sentences on what is odd about labelled texts: empty ones, duplicates, labels that occur once."""
    sentences = []
    empty = sum(not text or text.isspace() for text in texts)
    if empty:
        sentences.append(
            f"{empty:,} of {len(texts):,} texts are empty; they teach what to answer to nothing."
        )
    by_text: dict[str, set[Any]] = {}
    for text, label in zip(texts, labels, strict=True):
        by_text.setdefault(text, set()).add(label)
    if copies := len(texts) - len(by_text):
        torn = sum(len(found) > 1 for found in by_text.values())
        more = f", {torn:,} texts have more than one label" if torn else ""
        sentences.append(f"{copies:,} of {len(texts):,} texts are copies of another one{more}.")
    single = [label for label, count in Counter(labels).items() if count == 1]
    if single:
        names = ", ".join(map(str, single[:SHOWN])) + (", ..." if len(single) > SHOWN else "")
        sentences.append(f"{len(single):,} label(s) occur once and are not validated: {names}.")
    return sentences
