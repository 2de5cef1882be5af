"""Labels as they stand in cells, and what they are: names, whole numbers, or lists of either.

A name is the text of its cell: NA, None and 007 are labels. Numbers are numbers: 1.0 is 1.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from tinylm.text.tables import is_missing, why_unusable

Label = str | int

NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
INTEGER = re.compile(r"0|-?[1-9]\d{0,17}")  # as Python writes it: 007 is a name
WHOLE_DECIMAL = re.compile(r"(-?(?:0|[1-9]\d{0,17}))\.0+")
IN_BRACKETS = re.compile(r"\s*[\[({].*[\])}]\s*", re.DOTALL)
SEPARATORS = ";|,/"  # that people put between several labels in a cell


def is_no_label(value: object) -> bool:
    """Whether a cell holds no label: nothing, a blank, NaN, or a list with one of these."""
    if isinstance(value, list):
        return any(is_no_label(part) for part in value)
    return is_missing(value) or why_unusable(_name(value)) is not None


def read_labels(values: Sequence[Any], separator: str | None = None) -> tuple[list[Any], list[str]]:
    """The labels in the cells of a column.

    Args:
        values: cells with a label: texts, numbers or lists of them.
        separator: between several labels in a text; None for one each.

    Returns:
        For each cell its label, a list of labels where cells hold lists, or None where it turns out that it
        has none; and remarks on labels that were read or may be meant in another way than they look.
        All labels are whole numbers (`int`) or all are names.
    """
    notes: list[str] = []
    if separator is not None:
        values = [_split(value, separator) if isinstance(value, str) else value for value in values]
    elif (lists := _lists_in(values)) is not None:
        values = lists
        notes.append("The labels are lists that were written as text; they are read as several labels.")
    if (marked := _marked_in(values)) is not None:
        values = marked
        notes.append("The labels are lists of 0 and 1, one for each label; its place, from 0, is its name.")
    named = [[_name(part) for part in value] if isinstance(value, list) else _name(value) for value in values]
    spelling = _spelling({name for value in named for name in listed(value)})
    labels = [
        [spelling[name] for name in value] if isinstance(value, list) else spelling[value] for value in named
    ]
    if separator is None and (example := _joined(spelling)):
        notes.append(
            f"Labels such as {example[0]!r} look like several in one cell; name the separator {example[1]!r}"
            " to read them so."
        )
    if alike := _alike(spelling):
        notes.append(f"{alike[0]!r} and {alike[1]!r} differ in capitals alone; they are two labels.")
    return labels, notes


def listed(value: Any) -> list[Any]:
    """A label in a list of its own; a list of labels as it is."""
    return value if isinstance(value, list) else [value]


def by_name(names: Iterable[Label]) -> Callable[[Label], int | None]:
    """Finds the number of a label by its name, 1.0 where the name is 1, and true where it is True."""
    number_of = {str(name): number for number, name in enumerate(names)}
    if {name.lower() for name in number_of} == {"true", "false"} and len(number_of) == 2:
        spellings = (str.lower, str.title, str.upper)
        number_of = {spelt(name): number for name, number in number_of.items() for spelt in spellings}
    by_value = {float(name): number for name, number in number_of.items() if NUMBER.fullmatch(name)}

    def find(label: Label) -> int | None:
        name = str(label)
        if name in number_of or not NUMBER.fullmatch(name):
            return number_of.get(name)
        return by_value.get(float(name))

    return find


def _name(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    return str(value).strip()


def _split(cell: str, separator: str) -> list[str]:
    return [part for part in cell.split(separator) if part.strip()]


def _spelling(names: set[str]) -> dict[str, Any]:
    """Each name as it stays: whole numbers as such, and NaN among numbers as None."""
    # NaN is a number that is not there, unless other names are words.
    absent = {name for name in names if name.lower() == "nan"}
    if not all(NUMBER.fullmatch(name) for name in names - absent) or names == absent:
        absent = set()
    # Where there is a 1.5 too, 1.0 may be a version or a grade, which stays as it is.
    decimals = [name for name in names if NUMBER.fullmatch(name) and not INTEGER.fullmatch(name)]
    whole = all(WHOLE_DECIMAL.fullmatch(name) for name in decimals if "." in name)
    spelling: dict[str, Any] = {}
    for name in names:
        match = WHOLE_DECIMAL.fullmatch(name) if whole else None
        spelling[name] = match[1] if match else name
    if all(INTEGER.fullmatch(spelling[name]) for name in names - absent):
        spelling = {name: name if name in absent else int(found) for name, found in spelling.items()}
    return spelling | dict.fromkeys(absent)


def _lists_in(values: Sequence[Any]) -> list[Any] | None:
    """The lists that cells hold as text, as Python, JSON or a database writes them; None if not all do."""
    texts = [value for value in values if isinstance(value, str)]
    if not texts or not all(IN_BRACKETS.fullmatch(text) for text in texts):
        return None
    if not any(re.search(r"""["',]|[\[({]\s*[\])}]""", text) for text in texts):
        return None  # names in brackets
    lists = [_list_in(value) if isinstance(value, str) else value for value in values]
    return None if any(value is None for value in lists) else lists


def _marked_in(values: Sequence[Any]) -> list[list[int]] | None:
    """Where all cells hold a 0 or 1 for each label, as a model is trained on them, the places of the 1."""
    if not values or not isinstance(values[0], list) or len(values[0]) < 2:
        return None
    for value in values:
        if not isinstance(value, list) or len(value) != len(values[0]):
            return None
        if not all(isinstance(part, int | float) and part in (0, 1) for part in value):
            return None
    return [[place for place, part in enumerate(value) if part] for value in values]


def _list_in(text: str) -> list[Any] | None:
    text = text.strip()
    if re.search(r"""['"]\s+['"]""", text):  # numpy writes no commas, and Python would join the strings
        return [first or second for first, second in re.findall(r"""'([^']*)'|"([^"]*)\"""", text)]
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        return list(value) if isinstance(value, list | tuple | set) else None
    inside = text[1:-1]
    if all(NUMBER.fullmatch(part) for part in inside.split()):
        return inside.split()
    parts = next(csv.reader([inside], skipinitialspace=True), [])
    return [part.strip().strip("'") for part in parts]


def _alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that differ in capitals alone."""
    seen: dict[str, str] = {}
    for name in sorted(names):
        if seen.setdefault(name.casefold(), name) != name:
            return seen[name.casefold()], name
    return None


def _joined(names: Collection[str]) -> tuple[str, str] | None:
    """A name that looks like several, and what separates them: all of its parts are found elsewhere, too."""
    for separator in SEPARATORS:
        parts = {name: {part.strip() for part in name.split(separator)} for name in names}
        several = sorted(name for name in names if len(parts[name]) > 1)
        found = Counter(part for each in parts.values() for part in each)
        if len(several) > 1 and all(found[part] > 1 for name in several for part in parts[name]):
            return several[0], separator
    return None
