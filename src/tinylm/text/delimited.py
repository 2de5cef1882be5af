"""Tables in text with a delimiter between cells (CSV, TSV), also where they were not written with care.

The `csv` module takes records apart; what is done here is to find the delimiter, and to lose no more than
one row to a stray quote or to a delimiter inside a text: no cell is ever taken for one of another column.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

DELIMITERS = {
    ",": "commas",
    ";": "semicolons",
    "\t": "tabs",
    "|": "vertical bars",
    "^": "carets",
    "~": "tildes",
    "\x01": "the character 1",  # Hive
}
NO_DELIMITER = "\x1f"  # of a table with one column, whose texts may hold any of the others
MOST_HEADER_LINES = 50  # a column's name in quotes may hold line ends

# Why the cells of a row cannot be told.
MORE, FEWER, STRAY_QUOTES = "more cells than columns", "fewer cells than columns", "stray quotes"

# A text of 10 MB in a cell is fine; the module's own limit, which is global, is 128 KB.
csv.field_size_limit(1 << 27)


class DelimitedTable:
    """A table in text: the header is read at once, the rows as they are wanted.

    Args:
        lines: of text, with their ends.
        required: columns that the header names with the right delimiter.
        expected: the delimiter that is tried first.
        header: names of the columns, where the first line is a row already.

    Attributes:
        columns: their names; "" for one without a name.
        delimiter: between cells.
    """

    def __init__(
        self,
        lines: Iterable[str],
        required: Sequence[str],
        expected: str = ",",
        header: Sequence[str] | None = None,
    ) -> None:
        self._lines = _Lines(lines)
        if header is None:
            found = self._read_header(required, expected)
        else:
            found = Header(expected, False, list(header))
        self.columns = found.columns
        self.delimiter = found.delimiter if len(found.columns) > 1 else NO_DELIMITER
        self._dialect: dict[str, Any] = {"delimiter": self.delimiter, "skipinitialspace": found.spaced}
        self._add_column_without_name()

    @property
    def in_words(self) -> str:
        """How the cells are separated."""
        if self.delimiter == NO_DELIMITER:
            return "one column"
        return f"cells separated by {DELIMITERS.get(self.delimiter, repr(self.delimiter))}"

    def rows(self) -> Iterator[list[str] | str]:
        """The cells of each row, or in words why they cannot be told; blank lines are not rows."""
        reader = csv.reader(self._lines, strict=True, **self._dialect)
        while True:
            self._lines.taken.clear()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                yield self._row_with_stray_quotes()
                reader = csv.reader(self._lines, strict=True, **self._dialect)
                continue
            if len(cells) == len(self.columns):
                yield cells
            elif cells:
                yield MORE if len(cells) > len(self.columns) else FEWER

    def _read_header(self, required: Sequence[str], expected: str) -> Header:
        line = ""
        for more in itertools.islice(self._lines, MOST_HEADER_LINES):
            line += more
            if told := re.fullmatch(r'"?sep=(.)"?\s*', line):  # a line that Excel understands
                expected, line = told[1], ""
            elif line.strip() and line.count('"') % 2 == 0:
                break
        return find_header(line, required, expected)

    def _add_column_without_name(self) -> None:
        """Make room for a cell that the header lacks: row numbers, as R writes them, or an empty last one."""
        self._lines.taken.clear()
        begin: list[list[str]] = []
        for line in self._lines:
            cells = next(csv.reader([line], **self._dialect), [])
            if len(cells) == len(self.columns) + 1:
                begin.append(cells)
            elif cells:
                break
            if len(begin) == 2:
                break
        self._lines.give_back()
        if len(begin) < 2:
            return
        if [cells[0] for cells in begin] == ["1", "2"]:
            self.columns.insert(0, "")
        elif not any(cells[-1] for cells in begin):
            self.columns.append("")

    def _row_with_stray_quotes(self) -> list[str] | str:
        """The row that begins with the first of the lines taken, whose quotes are not those of a CSV file."""
        if any("\\" in line for line in self._lines.taken):
            # Spark and MySQL write a quote in a text as \".
            self._lines.give_back()
            escaped = csv.reader(
                self._lines, strict=True, doublequote=False, escapechar="\\", **self._dialect
            )
            try:
                cells = next(escaped, [])
            except csv.Error:
                cells = []
            if len(cells) == len(self.columns):
                return cells
        # A text may begin with a quote of its own: the row is this line, and quotes mean nothing in it.
        self._lines.give_back()
        cells = next(csv.reader([next(self._lines)], quoting=csv.QUOTE_NONE, **self._dialect), [])
        # Where a quote has no other, the cell may have been meant to end elsewhere.
        if len(cells) != len(self.columns) or any(cell.count('"') % 2 for cell in cells):
            return STRAY_QUOTES
        return [cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell for cell in cells]


class Header:
    """The names of columns, and how they are separated.

    Attributes:
        delimiter: between cells.
        spaced: whether a space follows each delimiter and belongs to no cell.
        columns: their names.
    """

    def __init__(self, delimiter: str, spaced: bool, columns: list[str]) -> None:
        self.delimiter, self.spaced, self.columns = delimiter, spaced, columns


def find_header(line: str, required: Sequence[str], expected: str = ",") -> Header:
    """The names of columns in the first line of a table.

    Of the delimiters with which the required ones are among them the first, beginning with
    `expected`; where there is none, the one that gives most columns.
    """
    headers = []
    for delimiter in dict.fromkeys([expected, *DELIMITERS]):
        between = re.findall(re.escape(delimiter) + "( ?)", line)
        spaced = bool(between) and all(between)
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=spaced), [])
        columns = [" ".join(cell.strip("\ufeff").split()) for cell in cells]
        if set(required) <= set(columns):
            return Header(delimiter, spaced, columns)
        headers.append(Header(delimiter, spaced, columns))
    return max(headers, key=lambda header: len(header.columns))


class _Lines:
    """Lines of which the latest can be given back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._back: deque[str] = deque()
        self.taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._lines)
        self.taken.append(line)
        return line

    def give_back(self) -> None:
        """Return all that was taken since `taken` was cleared."""
        self._back.extendleft(reversed(self.taken))
        self.taken.clear()
