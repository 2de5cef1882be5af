"""Columns of texts and labels in all common forms: lists, arrays, pandas, polars or pyarrow columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from tinylm.errors import InputError
from tinylm.text.tables import is_missing, why_unusable

NUMBERS = (int, float, np.number, np.bool_)
SHOWN = 5  # labels that a message names
WITHOUT_ORDER = (set, frozenset, dict)
ORDERED = (list, tuple, np.ndarray)
LISTS = (*ORDERED, set, frozenset)
# Forms of labels: one for each text; a list of them; 0 or 1 for each text and label, dense or sparse.
ONE, SEVERAL, INDICATOR, SPARSE = "one", "lists", "indicator", "sparse"


def texts_of(column: Any, name: str = "X") -> list[str]:
    """The texts of a column.

    Args:
        column: a list, tuple, array `[n]` or `[n, 1]`, a pandas, polars or pyarrow column, or a data
            frame with a single column.
        name: its name in messages.

    Raises:
        InputError: no column, another type than strings somewhere, or text that UTF-8 cannot hold.
    """
    if isinstance(column, (str, bytes, *WITHOUT_ORDER)) or not (
        isinstance(column, Iterable) or hasattr(column, "column_names")
    ):
        raise InputError(f"{name} is {column!r:.60}; expected a column of texts, such as a list of strings.")
    if hasattr(column, "toarray"):
        raise InputError(f"{name} is a sparse matrix; expected a column of texts.")
    shape = getattr(column, "shape", None)
    if shape is not None and len(shape) == 2:
        if shape[1] != 1:
            raise InputError(f"{name} has {shape[1]} columns; expected a single column of texts.")
        column = _only_column(column)
    elif shape is not None and len(shape) != 1:
        raise InputError(f"{name} has {len(shape)} dimensions; expected a column of texts.")
    texts = _values(column)
    for row, text in enumerate(texts, 1):
        if why_unusable(text) in ("no text", "not UTF-8"):
            raise InputError(f"{name}, row {row} is {text!r:.60}; expected a string of Unicode.")
    return [str(text) for text in texts]


@dataclass(frozen=True)
class Labels:
    """The labels of a column.

    Attributes:
        classes: the distinct labels, `[labels]`.
        targets: `int64 [texts]`, or `float32 [texts, labels]` of 0 and 1 for several labels per text.
        form: how they were given: `ONE`, `SEVERAL`, `INDICATOR` or `SPARSE`.
    """

    classes: np.ndarray
    targets: np.ndarray
    form: str

    @property
    def rows(self) -> list[Any]:
        """For each text a value that is the same for the same labels."""
        if self.form == ONE:
            return self.classes[self.targets].tolist()
        return [tuple(row) for row in self.targets.tolist()]


def labels_of(column: Any, name: str = "y") -> Labels:
    """The labels of a column, in any of their forms.

    Args:
        column: strings or numbers; a list of such for each text; or 0 and 1 for each text and label, as
            `MultiLabelBinarizer` makes them: an array `[texts, labels]`, dense or sparse, or a data
            frame whose columns are named as the labels.
        name: its name in messages.

    Raises:
        InputError: a missing label, labels of several types, fewer than two columns.
    """
    if isinstance(column, WITHOUT_ORDER):
        raise InputError(f"{name} is {column!r:.60}; expected a label for each text, in their order.")
    if hasattr(column, "toarray"):
        targets = _zeros_and_ones(column.toarray(), name)
        return Labels(_at_least_two(np.arange(targets.shape[1]), name), targets, SPARSE)
    shape = getattr(column, "shape", None)
    if shape is not None and len(shape) == 2 and shape[1] > 1:
        targets = _zeros_and_ones(np.asarray(column), name)
        names = getattr(column, "column_names", getattr(column, "columns", None))
        classes = np.arange(shape[1]) if names is None else np.array([str(title) for title in names])
        return Labels(_at_least_two(classes, name), targets, INDICATOR)
    if shape is None or len(shape) == 1:
        values = (
            [] if isinstance(column, str | bytes) or not isinstance(column, Iterable) else _values(column)
        )
        if any(isinstance(row, LISTS) for row in values):
            if _is_indicator(values):
                targets = np.array([list(row) for row in values], np.float32)
                return Labels(np.arange(targets.shape[1]), targets, INDICATOR)
            classes, targets = _label_lists(values, name)
            return Labels(classes, targets, SEVERAL)
        for row, label in enumerate(values, 1):
            if is_missing(label):
                raise InputError(f"{name}, row {row} has no label (NaN or None); leave the row out.")
        if len({isinstance(label, str) for label in values}) > 1:
            raise InputError(f"{name} mixes strings and numbers as labels; expected one of them.")
        if values and not isinstance(column, list | tuple) and not _is_plain(column):
            column = np.array(values)  # scikit-learn does not accept all dtypes of other libraries
    elif type(column).__module__.partition(".")[0] in ("polars", "pyarrow"):
        column = np.array(_values(_only_column(column)))
    found = column_or_1d(column, warn=True)
    for row, label in enumerate(found.tolist(), 1):
        if is_missing(label):
            raise InputError(f"{name}, row {row} has no label (NaN or None); leave the row out.")
    check_classification_targets(found)
    classes, numbers = np.unique(found, return_inverse=True)
    return Labels(classes, numbers.astype(np.int64), ONE)


def in_form(decisions: np.ndarray, classes: np.ndarray, form: str) -> Any:
    """Several labels per text in the form in which they were given to the fit.

    Args:
        decisions: `bool [texts, labels]`.
        classes: the labels.
        form: `SEVERAL` for a list of lists, `INDICATOR` for an array of 0 and 1, `SPARSE` for such a matrix.
    """
    if form == SPARSE:
        return sp.csr_matrix(decisions.astype(np.int64))
    if form == INDICATOR:
        return decisions.astype(np.int64)
    return [classes[row].tolist() for row in decisions]


def rows_of_labels(column: Any, classes: np.ndarray) -> list[frozenset[Any]]:
    """The labels of each text as a set, from any of the forms of several labels per text."""
    dense = column.toarray() if hasattr(column, "toarray") else column
    shape = getattr(dense, "shape", None)
    if shape is not None and len(shape) == 2:
        return [frozenset(classes[row].tolist()) for row in np.asarray(dense).astype(bool)]
    rows = _values(dense)
    if rows and _is_indicator(rows) and len(rows[0]) == len(classes):
        return rows_of_labels(np.array([list(row) for row in rows]), classes)
    return [frozenset(row) for row in rows]


def weights_of(column: Any, n_texts: int) -> np.ndarray | None:
    """The weights of texts, `float32 [texts]` with a mean of 1; None for none.

    Raises:
        InputError: not a finite number from 0 for each text, or all 0.
    """
    if column is None:
        return None
    try:
        weights = np.asarray(_values(column), np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"sample_weight is {column!r:.60}; expected a number for each text.") from error
    if weights.shape != (n_texts,):
        raise InputError(
            f"sample_weight has the shape {weights.shape}; expected ({n_texts},), one for each text."
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise InputError("sample_weight holds negative numbers, infinity or NaN, or nothing but 0.")
    return np.asarray(weights / weights.mean(), np.float32)


def _values(column: Any) -> list[Any]:
    """The values of a column as Python's own, whatever library it is of."""
    for method in ("to_pylist", "to_list", "tolist"):  # pyarrow; polars and pandas; numpy
        if hasattr(column, method):
            return list(getattr(column, method)())
    return list(column)


def _only_column(frame: Any) -> Any:
    if hasattr(frame, "column_names"):  # pyarrow
        return frame.column(0)
    to_numpy = getattr(frame, "to_numpy", None)
    return (to_numpy() if to_numpy else np.asarray(frame))[:, 0]


def _is_plain(column: Any) -> bool:
    return isinstance(column, np.ndarray) and column.dtype.kind in "biufUS"


def _is_indicator(rows: Sequence[Any]) -> bool:
    """Whether lists hold 0 or 1 for each label, not the labels 0 and 1: then all texts would have both."""
    return len({len(row) if isinstance(row, ORDERED) else 0 for row in rows}) == 1 and all(
        len(row) > 1 and all(isinstance(value, NUMBERS) and value in (0, 1) for value in row) for row in rows
    )


def _zeros_and_ones(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind not in "biuf":
        marks = [value if isinstance(value, NUMBERS) else np.nan for value in values.ravel()]
        numbers = np.array(marks, np.float32).reshape(values.shape)
    else:
        numbers = values.astype(np.float32)
    if not np.isin(numbers, (0, 1)).all():
        row, place = np.argwhere(~np.isin(numbers, (0, 1)))[0].tolist()
        raise InputError(
            f"{name} should be a 1d array of labels, or 0 and 1 for each text and label; its shape is"
            f" {values.shape} and row {row + 1}, column {place + 1} is {values[row, place]!r}."
        )
    return numbers


def _at_least_two(classes: np.ndarray, name: str) -> np.ndarray:
    if len(classes) < 2:
        raise InputError(f"{name} has {len(classes)} label(s); expected at least two to choose from.")
    return classes


def _label_lists(rows: Sequence[Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels, sorted, and targets of a column that has a list of labels for each text."""
    lists = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, LISTS):
            raise InputError(f"{name}, row {number} is {row!r:.60}; the others are lists of labels.")
        lists.append(_values(row))
    found = {label for row in lists for label in row}
    if len({isinstance(label, str) for label in found}) > 1:
        raise InputError(f"{name} mixes strings and numbers as labels; expected one of them.")
    classes = _at_least_two(np.array(sorted(found)), name)
    number_of = {label: number for number, label in enumerate(classes.tolist())}
    targets = np.zeros((len(lists), len(classes)), np.float32)
    for number, row in enumerate(lists):
        targets[number, [number_of[label] for label in row]] = 1
    return classes, targets


def data_warnings(texts: Sequence[str], labels: Sequence[Any]) -> list[str]:
    """Sentences on likely mistakes in labelled texts: empty ones, duplicates, labels that occur once."""
    sentences = []
    empty = sum(not text or text.isspace() for text in texts)
    if empty:
        sentences.append(
            f"{empty:,} of {len(texts):,} texts are empty; the model learns a label for such texts, too."
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
