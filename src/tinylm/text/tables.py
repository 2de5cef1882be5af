"""Rows of tables as spreadsheets, pandas, `datasets` and other tools write them, one after the other.

A file may be larger than memory, except for Excel, compressed parquet, and JSON other than an object on
each line. What it holds is told by its first bytes, its name and its first line, in this order.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow
import pyarrow.parquet

from tinylm.errors import UserError
from tinylm.text.delimited import DELIMITERS, DelimitedTable, find_header
from tinylm.text.encoding import DECOMPRESSION_ERRORS, MOST_AT_ONCE, STDIN, Source, open_text, too_large
from tinylm.text.formats import (
    Cells,
    arrow_rows,
    excel_rows,
    fasttext_row,
    is_fasttext,
    is_json,
    json_rows,
)
from tinylm.text.prefix import why_no_text

LINES, FASTTEXT, DELIMITED, JSON = "lines of text", "fastText", "CSV", "JSON"
PARQUET, ARROW, EXCEL = "parquet", "Arrow", "Excel"
FORMATS = {
    ".txt": LINES,
    ".csv": DELIMITED,
    ".tsv": DELIMITED,
    ".tab": DELIMITED,
    ".jsonl": JSON,
    ".ndjson": JSON,
    ".json": JSON,
    ".parquet": PARQUET,
    ".arrow": ARROW,
    ".feather": ARROW,
    ".xlsx": EXCEL,
    ".xlsm": EXCEL,
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
# How files begin that are not text.
MAGIC = {
    b"PAR1": PARQUET,
    b"ARROW1": ARROW,
    b"\xff\xff\xff\xff": ARROW,  # a stream, as `datasets` stores it
    b"PK\x03\x04": EXCEL,
}
OLD_EXCEL = b"\xd0\xcf\x11\xe0"
# What reading a damaged file raises.
READ_ERRORS = (*DECOMPRESSION_ERRORS, csv.Error, UnicodeError, pyarrow.ArrowException)
# Rows of a JSON file that are held back until one has all columns that it must have.
HELD_BACK = 1000


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        number: its place among the rows, from 1.
        cells: name of the column -> value; None or no entry for what is not there.
        problem: why its cells cannot be told, in words to count by; None for most rows.
    """

    number: int
    cells: Mapping[str, Any]
    problem: str | None = None

    def get(self, column: str) -> Any:
        """The value of a column; `a.b` may be the entry b of an object in the column a."""
        if column in self.cells:
            return self.cells[column]
        value: Any = self.cells
        for name in column.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


@dataclass
class Table:
    """An open table.

    Attributes:
        name: for messages.
        how: what it was taken for, in words.
        rows: can be read once.
        labels_in_lists: whether a label comes in a list also where it is the only one (fastText).
    """

    name: str
    how: str
    rows: Iterable[Row]
    labels_in_lists: bool = False

    def __iter__(self) -> Iterator[Row]:
        number = 0
        try:
            for row in self.rows:
                number = row.number
                yield row
        except READ_ERRORS as error:
            raise UserError(f"{self.name} cannot be read after row {number}: {error}.") from error


def file_format(path: Path) -> str | None:
    """What a file of this name is taken for, as in `FORMATS`; None for one that is not read."""
    name = path.with_suffix("") if path.suffix in COMPRESSED else path
    return FORMATS.get(name.suffix.lower())


def open_table(
    path: Path | str,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    header: Sequence[str] | None = None,
    encoding: str | None = None,
    as_it_comes: bool = False,
) -> Table:
    """Open a table, and find out how it is written.

    Lines of text have one column, `text`; those of fastText `text` and `label`. Where a row lacks a value
    its `cells` lack the entry or hold None. Bytes that the encoding does not know come as lone surrogates,
    for the caller to count (`why_unusable`).

    Args:
        path: of a file, a pipe, or a folder of files, such as Spark and `datasets` write; `-` for
            standard input.
        required: columns that must exist, that of the text first.
        optional: columns to read if they exist.
        header: names of the columns of a CSV file without a header line.
        encoding: of text; None finds out.
        as_it_comes: give the rows of a pipe when they are there.

    Raises:
        UserError: a missing, empty, damaged or unknown file, or a column that is not there.
    """
    if str(path) != STDIN and Path(path).is_dir():
        return _open_folder(Path(path), required, optional, encoding)
    source = Source(path, as_it_comes)
    name = source.name
    try:
        stream = source.open()
        first_bytes = stream.peek(8)[:8]  # type: ignore[attr-defined]
        kind = next((kind for magic, kind in MAGIC.items() if first_bytes.startswith(magic)), None)
        if first_bytes.startswith(OLD_EXCEL):
            raise UserError(f"{name} is an old or an encrypted Excel file; save it as .xlsx or .csv.")
        named = file_format(source.path)
        if kind is not None or named in (PARQUET, ARROW, EXCEL):
            as_file = _held(name, stream) if source.compressed or not source.is_file else source.path
            return _open_binary(name, kind or named, as_file, required, optional)
        return _open_text(source, named, required, header, encoding)
    except READ_ERRORS as error:
        raise UserError(f"{name} cannot be read after row 0: {error}.") from error


def read_rows(
    path: Path | str,
    required: Sequence[str],
    optional: Sequence[str] = (),
    header: Sequence[str] | None = None,
) -> Iterator[Row]:
    """The rows of a table; see `open_table`."""
    yield from open_table(path, required, optional, header=header)


@dataclass(frozen=True)
class Problem:
    """Why a row has no text that can be used, in words to count by."""

    reason: str


def text_of(row: Row, columns: Sequence[str]) -> str | Problem:
    """The text of a row; of several columns, those that hold something are joined with a space."""
    if row.problem:
        return Problem(row.problem)
    texts = [_as_text(row.get(column)) for column in columns]
    reasons = [why_unusable(text) for text in texts]
    usable = [str(text) for text, reason in zip(texts, reasons, strict=True) if reason is None]
    for reason in ("not UTF-8", *(["empty text", "no text"] if not usable else [])):
        if reason in reasons:
            return Problem(reason)
    return " ".join(usable)


def _as_text(value: object) -> object:
    """A text as it would stand in a CSV file: some programs store bytes, or texts of digits as numbers."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, int | float) and not isinstance(value, bool) and not is_missing(value):
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return value


def is_missing(value: object) -> bool:
    """Whether a value is missing: None, NaN of any library, pandas' NA."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # NA is neither equal nor unequal; an array gives an array
        return type(value).__name__ == "NAType"


def why_unusable(text: object) -> str | None:
    """Why a row's text cannot be used, in words to count by; None if it can."""
    if isinstance(text, Problem):
        return text.reason
    return why_no_text(text)


def count_rows(path: Path) -> int | None:
    """Number of rows, if the file states it."""
    if file_format(path) != PARQUET or path.suffix in COMPRESSED:
        return None
    try:
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    except READ_ERRORS as error:
        raise UserError(f"{path} is not a valid parquet file: {error}.") from error


def _open_folder(
    folder: Path, required: Sequence[str], optional: Sequence[str], encoding: str | None
) -> Table:
    """The files of a folder as one table, in the order of their names."""
    files = files_of(folder)
    first = open_table(files[0], required, optional, encoding=encoding)

    def rows() -> Iterator[Row]:
        number = 0
        for file in files:
            table = first if file == files[0] else open_table(file, required, optional, encoding=encoding)
            for row in table:
                number += 1
                yield row._replace(number=number)

    return Table(str(folder), f"{len(files):,} file{'' if len(files) == 1 else 's'}, {first.how}", rows())


def files_of(folder: Path) -> list[Path]:
    """The files of a folder that can be read, without notes such as those that `datasets` leaves there.

    Raises:
        UserError: there is none.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] not in "._"]
    notes = ("dataset_info.json", "state.json", "dataset_dict.json")
    found = [path for path in files if file_format(path) and path.name not in notes]
    if not found:
        splits = [path.name for path in sorted(folder.iterdir()) if (path / "state.json").is_file()]
        hint = f"; it has the splits {', '.join(splits)}: name one of these folders" if splits else ""
        raise UserError(f"The folder {folder} holds no file that can be read{hint}.")
    return found


def _held(name: str, stream: BinaryIO) -> BytesIO:
    """All that a stream holds."""
    held = BytesIO(stream.read(MOST_AT_ONCE))
    if stream.read(1):
        raise UserError(too_large(name))
    return held


def _open_binary(
    name: str, kind: str | None, file: Any, required: Sequence[str], optional: Sequence[str]
) -> Table:
    if kind == EXCEL:
        opened = file if isinstance(file, BytesIO) else file.open("rb")
        title, columns, cells = excel_rows(name, opened, required)
        how = f"Excel, sheet {title!r}"
    else:
        if kind == ARROW and isinstance(file, Path):
            file = pyarrow.memory_map(str(file))
        columns, cells = arrow_rows(name, file, kind == PARQUET, [*required, *optional])
        how = str(kind)
    _check_columns(name, required, columns)
    return Table(name, how, _numbered(cells))


def _open_text(
    source: Source,
    kind: str | None,
    required: Sequence[str],
    header: Sequence[str] | None,
    encoding: str | None,
) -> Table:
    lines, found, first = open_text(source, encoding)
    name, kind = source.name, _kind_of_text(source, kind, first, required)
    if kind == JSON:
        rows = _numbered(json_rows(name, lines, required))
        return Table(name, f"JSON, {found}", _with_columns(name, rows, required))
    if kind == DELIMITED:
        expected = "\t" if source.path.suffixes[:1] in ([".tsv"], [".tab"]) else ","
        table = DelimitedTable(lines, required, expected, header)
        _check_columns(name, required, table.columns)
        cells = (
            row if isinstance(row, str) else dict(zip(table.columns, row, strict=True))
            for row in table.rows()
        )
        return Table(name, f"{table.in_words}, {found}", _numbered(cells))
    if kind == FASTTEXT:
        _check_columns(name, required, ["text", "label"])
        filled = (line for line in lines if line.strip())
        return Table(name, f"fastText, {found}", _numbered(map(fasttext_row, filled)), True)
    _check_columns(name, required, ["text"])
    return Table(name, f"lines of text, {found}", _numbered({"text": line.rstrip("\r\n")} for line in lines))


def _kind_of_text(source: Source, kind: str | None, first: str, required: Sequence[str]) -> str:
    """What a text is, where its name does not tell all: pipes, `.txt`, and other names."""
    if kind not in (None, LINES):
        return str(kind)
    if is_fasttext(first):
        return FASTTEXT
    header = find_header(first, required)
    is_table = set(required) <= set(header.columns)
    if kind == LINES:
        # Excel's "Unicode text" is a .txt file. A text may begin with the name of one column, by chance.
        several = len(required) > 1 or header.delimiter == "\t"
        return DELIMITED if is_table and len(header.columns) > 1 and several else LINES
    if is_json(first):
        return JSON
    if is_table:
        return DELIMITED
    if source.is_file:
        known = ", ".join([*FORMATS, *COMPRESSED])
        raise UserError(f"{source.name} has an unknown format; expected {known}.")
    return LINES if required == ["text"] or len(required) == 1 else DELIMITED


def _numbered(rows: Iterable[Cells]) -> Iterator[Row]:
    for number, cells in enumerate(rows, 1):
        yield Row(number, {}, cells) if isinstance(cells, str) else Row(number, cells)


def _check_columns(name: str, required: Sequence[str], columns: Sequence[str]) -> None:
    for column in required:
        if column not in columns and column.partition(".")[0] not in columns:
            raise UserError(
                f"{name} has no column {column!r}; it has {_listed(columns)}.{_hint(column, columns)}"
            )
        if columns.count(column) > 1:
            raise UserError(
                f"{name} has {columns.count(column)} columns that are named {column!r}; expected one."
            )


def _with_columns(name: str, rows: Iterator[Row], required: Sequence[str]) -> Iterator[Row]:
    """Rows of a table without a header: a column is there if any row has it."""
    missing, known, held = set(required), dict[str, None](), list[Row]()
    for row in rows:
        if missing:
            known |= dict.fromkeys(row.cells)
            missing = {
                column for column in missing if column.partition(".")[0] not in known and column not in known
            }
            held.append(row)
            if missing and len(held) < HELD_BACK:
                continue
            yield from held
            held.clear()
        else:
            yield row
    if missing:
        _check_columns(name, required, list(known))
    yield from held


def _listed(columns: Sequence[str]) -> str:
    # The first row of a table without a header can be whole texts.
    return (
        ", ".join(repr(column if len(column) < 40 else column[:40] + "...") for column in columns) or "none"
    )


def _hint(column: str, columns: Sequence[str]) -> str:
    """What may be meant by a column that is not there."""
    parts = [part.strip() for part in column.split(",")]
    if len(parts) > 1 and set(parts) <= set(columns):
        return f" Give several columns one by one: {parts[0]!r}, then {parts[1]!r}."
    for name in columns:
        if name.casefold() == column.casefold():
            return f" Capitals matter: name the column {name!r}."
    if len(columns) == 1 and re.search(rf"\b{re.escape(column)}\b", columns[0]):
        return f" Separate cells by {', '.join(list(DELIMITERS.values())[:-1])}."
    return ""
