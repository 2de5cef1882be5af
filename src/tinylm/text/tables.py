"""Rows of text files, tables and JSON lines, one after the other: a file may be larger than memory."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO, cast

import pyarrow
import pyarrow.parquet

from tinylm.errors import UserError

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
BATCH = 1000  # rows of a parquet file in memory
STDIN = "-"

Row = dict[str, Any]
# What reading a damaged file raises, by format.
READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, csv.Error, UnicodeError, pyarrow.ArrowException)

# A text of 10 MB in a CSV file is fine; the module's own limit, which is global, is 128 KB.
csv.field_size_limit(1 << 30)


def file_format(path: Path) -> str | None:
    """`.csv` for `a.csv` and `a.csv.gz`; None for a file that cannot be read here."""
    name = path.with_suffix("") if path.suffix in OPENERS else path
    return name.suffix if name.suffix in FORMATS else None


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), header: Sequence[str] | None = None
) -> Iterator[tuple[int, Row]]:
    """Rows of a file as dicts, with their numbers, which start at 1.

    Formats: `.txt` (each line is a row with one column, `text`), `.jsonl` and `.json` (an object per
    line), `.csv` and `.tsv`, each also with `.gz`, `.bz2` or `.xz`, and `.parquet`.

    Where a row lacks a value (a line that is no JSON object, a short CSV row), its dict lacks the key or
    holds None. Bytes that are not UTF-8 come as lone surrogates, for the caller to count (`why_unusable`).

    Args:
        path: the file.
        required: columns that must exist.
        optional: columns to read if they exist.
        header: names of the columns of a CSV file without a header line.

    Raises:
        UserError: a missing, empty, damaged or unknown file, or a column that is not there.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty.")
    kind = file_format(path)
    if kind is None:
        raise UserError(
            f"{path} has an unknown format; expected {', '.join(FORMATS)} (or with .gz, .bz2, .xz)."
        )
    number = 0
    try:
        if kind == ".parquet":
            rows = _parquet_rows(path, required, optional)
        else:
            rows = _text_rows(path, kind, required, header)
        for number, row in enumerate(rows, start=1):  # noqa: B007 - the error below needs the number
            yield number, row
    except READ_ERRORS as error:
        raise UserError(f"{path} cannot be read after row {number}: {error}") from error


def read_stdin(required: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Rows of standard input, as `read_rows` gives those of a file.

    The first line tells the format: a JSON object, a header (of CSV or TSV) that names the
    columns, or the first of many texts, each a line.

    Raises:
        UserError: nothing comes, it breaks off, or a column is not there.
    """
    buffer = sys.stdin.buffer
    first = buffer.readline()
    if not first:
        raise UserError("standard input is empty.")
    rest = io.BufferedReader(_Continued(first, buffer))
    lines = io.TextIOWrapper(rest, encoding="utf-8-sig", errors="surrogateescape", newline="")
    head = first.decode("utf-8-sig", errors="surrogateescape").rstrip("\r\n")
    name = Path("standard input")
    if head.lstrip().startswith("{"):
        rows = _line_rows(name, lines, ".jsonl", required)
    elif {required[0]} <= set(next(csv.reader([head], delimiter="\t" if "\t" in head else ","), [])):
        rows = _csv_rows(name, lines, ".tsv" if "\t" in head else ".csv", required, None)
    else:
        rows = _line_rows(name, lines, ".txt", required)
    number = 0
    try:
        for number, row in enumerate(rows, start=1):  # noqa: B007 - the error below needs the number
            yield number, row
    except READ_ERRORS as error:
        raise UserError(f"standard input cannot be read after row {number}: {error}") from error


class _Continued(io.RawIOBase):
    """A line that has been read already, and what follows it."""

    def __init__(self, first: bytes, rest: Any) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        data = self._first[: len(target)] or self._rest.read1(len(target))
        self._first = self._first[len(data) :]
        target[: len(data)] = data
        return len(data)


def why_unusable(text: object) -> str | None:
    """Why a row's text cannot be used, in words to count by; None if it can."""
    if not isinstance(text, str):
        return "no text"
    if not text or text.isspace():
        return "empty text"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "not UTF-8"
    return None


def count_rows(path: Path) -> int | None:
    """Number of rows where the file says so at no cost."""
    if file_format(path) != ".parquet":
        return None
    try:
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    except READ_ERRORS as error:
        raise UserError(f"{path} is no parquet file: {error}.") from error


def _check_columns(path: Path, required: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [column for column in required if column not in columns]:
        # The first row of a table without a header can be whole texts.
        names = ", ".join(repr(column if len(column) < 40 else column[:40] + "...") for column in columns)
        raise UserError(f"{path} has no column {missing[0]!r}; it has {names}.")


def _parquet_rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    with pyarrow.parquet.ParquetFile(path) as file:
        columns = file.schema_arrow.names
        _check_columns(path, required, columns)
        wanted = [column for column in (*required, *optional) if column in columns]
        for batch in file.iter_batches(BATCH, columns=wanted):
            yield from batch.to_pylist()


def _open_text(path: Path, newline: str | None) -> TextIO:
    opener = OPENERS.get(path.suffix, open)
    return cast(TextIO, opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=newline))


def _text_rows(path: Path, kind: str, required: Sequence[str], header: Sequence[str] | None) -> Iterator[Row]:
    table = kind in (".csv", ".tsv")
    # The csv module wants to see the line ends.
    with _open_text(path, newline="" if table else None) as lines:
        if table:
            yield from _csv_rows(path, lines, kind, required, header)
        else:
            yield from _line_rows(path, lines, kind, required)


def _csv_rows(
    path: Path, lines: TextIO, kind: str, required: Sequence[str], header: Sequence[str] | None
) -> Iterator[Row]:
    cells = csv.reader(lines, delimiter="\t" if kind == ".tsv" else ",")
    columns = header or next(cells, [])
    _check_columns(path, required, columns)
    for row in cells:
        if row:  # no blank line
            yield dict(zip_longest(columns, row[: len(columns)]))


def _line_rows(path: Path, lines: TextIO, kind: str, required: Sequence[str]) -> Iterator[Row]:
    if kind == ".txt":
        _check_columns(path, required, ["text"])
        for line in lines:
            yield {"text": line.rstrip("\r\n")}
        return
    checked = False
    for line in lines:
        row = _json_object(line)
        if row and not checked:  # the first object stands for all
            _check_columns(path, required, list(row))
            checked = True
        yield row


def _json_object(line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
