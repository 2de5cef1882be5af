"""Rows of JSON, fastText, parquet, Arrow and Excel files, as dicts; a string says why one cannot be read."""

from __future__ import annotations

import itertools
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TextIO

import pyarrow
import pyarrow.parquet

from tinylm.errors import UserError
from tinylm.text.encoding import MOST_AT_ONCE, too_large

BATCH = 1000  # rows of a parquet file in memory
FASTTEXT_LABEL = "__label__"
EXCEL_ROWS = 1 << 20  # of a sheet; a damaged one may claim any number, and openpyxl gives the blank ones too
NO_OBJECT = "no JSON object"

Cells = Mapping[str, Any] | str


# --- JSON ---


def is_json(line: str) -> bool:
    """Whether a file that begins with this line holds JSON objects, or an array of them."""
    return re.match(r'\s*(\{\s*("|$)|\[\s*(\{|\[|$))', line) is not None


def json_rows(name: str, lines: TextIO, required: Sequence[str]) -> Iterator[Cells]:
    """The objects of a JSON file: one on each line, one after the other, or in an array.

    What pandas writes otherwise (`orient="columns"`, `"index"`, `"split"`, `"table"`) is read too, and
    an array that is an entry of an object.

    Args:
        name: of the file, for messages.
        lines: its text; only an object on each line is read without holding all of it in memory.
        required: columns that rows have, the text first.

    Raises:
        UserError: it is not JSON.
    """
    first = next(_filled(lines), "")
    row = _parsed(first)
    if isinstance(row, dict) and not _is_a_column(row.get(required[0])):
        # A complete text is parsed without waiting for the next line.
        second = "" if required[0] in row else next(_filled(lines), "")
        if required[0] in row or isinstance(_parsed(second), dict):
            yield row
            yield from _one_a_line(itertools.chain([second], lines))
            return
        first += second
    text = first + lines.read()
    try:
        values = _values(text)
    except (ValueError, RecursionError) as error:
        rows = list(_one_a_line(iter(text.splitlines())))
        if all(row == NO_OBJECT for row in rows):
            raise UserError(f"{name} is not JSON: {error}.") from error
        yield from rows
    else:
        for row in _unfolded(values[0], required) if len(values) == 1 else values:
            yield row if isinstance(row, dict) else NO_OBJECT


def _filled(lines: Iterator[str]) -> Iterator[str]:
    return (line for line in lines if line.strip())


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _one_a_line(lines: Iterator[str]) -> Iterator[Cells]:
    for line in _filled(lines):
        row = _parsed(line)
        yield row if isinstance(row, dict) else NO_OBJECT


def _values(text: str) -> list[Any]:
    """All JSON values of a text, one after the other."""
    values: list[Any] = []
    space, decoder = re.compile(r"\s*"), json.JSONDecoder()
    place = len(text) - len(text.lstrip())
    while place < len(text):
        value, place = decoder.raw_decode(text, place)
        values.append(value)
        blank = space.match(text, place)
        assert blank is not None  # it also matches an empty string
        place = blank.end()
    return values


def _is_a_column(value: Any) -> bool:
    return isinstance(value, list | dict)


def _unfolded(value: Any, required: Sequence[str]) -> list[Any]:
    """The rows in the only value of a file."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return []
    if _is_a_column(value.get(required[0])):  # orient="columns", or lists
        columns = {
            name: column if isinstance(column, dict) else dict(enumerate(column))
            for name, column in value.items()
            if _is_a_column(column)
        }
        rows: dict[Any, dict[str, Any]] = {}
        for name, column in columns.items():
            for row, cell in column.items():
                rows.setdefault(row, {})[name] = cell
        return list(rows.values())
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):  # orient="split"
        titles = [str(column) for column in value["columns"]]
        return [
            dict(zip(titles, row, strict=False)) if isinstance(row, list) else row for row in value["data"]
        ]
    arrays = [entry for entry in value.values() if isinstance(entry, list) and isinstance(entry[:1], list)]
    arrays = [entry for entry in arrays if entry and isinstance(entry[0], dict)]
    if arrays:
        return max(arrays, key=len)
    if value and all(isinstance(entry, dict) for entry in value.values()):  # orient="index"
        return list(value.values())
    return [value]


# --- fastText ---


def is_fasttext(line: str) -> bool:
    """Whether a file that begins with this line is one of fastText's."""
    return any(word.startswith(FASTTEXT_LABEL) for word in line.split())


def fasttext_row(line: str) -> Cells:
    """The `text` of a line and its `label`, or a list of them, or None."""
    words = line.split()
    labels = [word.removeprefix(FASTTEXT_LABEL) for word in words if word.startswith(FASTTEXT_LABEL)]
    text = " ".join(word for word in words if not word.startswith(FASTTEXT_LABEL))
    return {"text": text, "label": labels or None}


# --- parquet and Arrow ---


def arrow_rows(
    name: str, file: Any, is_parquet: bool, columns: Sequence[str]
) -> tuple[list[str], Iterator[Cells]]:
    """The names of all columns, and the rows of a file with their cells of some.

    A number that stands for a class, as `datasets` stores it, becomes the name of the class.

    Args:
        name: of the file, for messages.
        file: a path or an open file that can be searched.
        is_parquet: or else Arrow, as a file (feather) or a stream.
        columns: to be read, where they exist; `a.b` is an entry of the column a.

    Raises:
        UserError: it is not such a file.
    """
    try:
        if is_parquet:
            opened = pyarrow.parquet.ParquetFile(file)
            schema = opened.schema_arrow
        else:
            opened = _open_arrow(file)
            schema = opened.schema
    except (OSError, pyarrow.ArrowException) as error:
        kind = "parquet" if is_parquet else "Arrow"
        raise UserError(f"{name} is not a valid {kind} file: {' '.join(str(error).split())}.") from error
    roots = {column if column in schema.names else column.partition(".")[0] for column in columns}
    wanted = [column for column in schema.names if column in roots]
    classes = {column: names for column, names in _class_names(schema).items() if column in wanted}

    def rows() -> Iterator[Cells]:
        batches = opened.iter_batches(BATCH, columns=wanted) if is_parquet else _arrow_batches(opened, wanted)
        try:
            for batch in batches:
                # An Arrow file holds offsets as they are; wrong ones would read beyond its end.
                batch.validate(full=True)
                for row in batch.to_pylist():
                    for column, names in classes.items():
                        row[column] = class_name(row[column], names)
                    yield row
        except (ValueError, ArithmeticError, LookupError) as error:  # a date of the year 300,000, a time zone
            raise UserError(
                f"{name} has a cell that cannot be read: {' '.join(str(error).split())}."
            ) from error

    return list(schema.names), rows()


def _open_arrow(file: Any) -> Any:
    try:
        return pyarrow.ipc.open_file(file)
    except pyarrow.ArrowInvalid:
        if hasattr(file, "seek"):
            file.seek(0)
        return pyarrow.ipc.open_stream(file)


def _arrow_batches(opened: Any, wanted: Sequence[str]) -> Iterator[Any]:
    if hasattr(opened, "num_record_batches"):
        batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
    else:
        batches = iter(opened)
    for batch in batches:
        batch = batch.select(wanted)
        for start in range(0, batch.num_rows, BATCH):
            yield batch.slice(start, BATCH)


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Column -> names of its classes, as `datasets` leaves them in the schema."""
    try:
        stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return {}
    features = _entry(_entry(stored, "info"), "features")
    if not isinstance(features, dict):
        return {}
    return {column: names for column, feature in features.items() if (names := class_names_of(feature))}


def class_names_of(feature: Any) -> list[str] | None:
    """The names of the classes of a feature of `datasets`, or of a list of such; None where it has none."""
    if isinstance(feature, list):  # as a list was written by earlier versions
        return class_names_of(feature[0]) if len(feature) == 1 else None
    names = _entry(feature, "names")
    if names and isinstance(names, list):
        return [str(name) for name in names]
    inner = _entry(feature, "feature")
    return class_names_of(inner) if inner is not None else None


def _entry(feature: Any, name: str) -> Any:
    return feature.get(name) if isinstance(feature, Mapping) else getattr(feature, name, None)


def class_name(value: Any, names: Sequence[str]) -> Any:
    """The name of a class by its number, also in a list; `datasets` writes -1 for a missing one."""
    if isinstance(value, list):
        return [class_name(entry, names) for entry in value]
    if isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return value


# --- Excel ---


def excel_rows(name: str, file: BinaryIO, required: Sequence[str]) -> tuple[str, list[str], Iterator[Cells]]:
    """Title, columns and rows of the first sheet that has the required columns, or else of the first.

    Cells become what a CSV file would hold: 3, not 3.0; nothing where a formula failed.

    Raises:
        UserError: it is no workbook, or openpyxl is not installed.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise UserError(f'{name} is an Excel file; to read it: pip install "tinylm[excel]".') from error
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(part.file_size for part in archive.infolist()) > MOST_AT_ONCE:
                raise UserError(too_large(name))
        sheets = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets
    except UserError:
        raise
    except Exception as error:  # openpyxl raises all kinds
        raise UserError(f"{name} is not an Excel file that can be read: {error}.") from error
    found: list[tuple[str, list[str], Iterator[Cells]]] = []
    for sheet in sheets:
        sheet.reset_dimensions()  # some programs write wrong ones
        lines = _excel_lines(name, sheet)
        header = next((line for line in lines if any(line)), [])
        columns = [" ".join((title or "").split()) for title in header]
        found.append((sheet.title, columns, _excel_cells(columns, lines)))
        if set(required) <= set(columns):
            return found[-1]
    if not found:
        raise UserError(f"{name} has no sheet with cells.")
    return found[0]


def _excel_lines(name: str, sheet: Any) -> Iterator[list[str | None]]:
    try:
        for line in sheet.iter_rows(max_row=EXCEL_ROWS):
            yield [_excel_cell(cell) for cell in line]
    except Exception as error:
        raise UserError(f"{name} is not an Excel file that can be read: {error}.") from error


def _excel_cell(cell: Any) -> str | None:
    if cell.value is None or cell.data_type == "e":
        return None
    value = cell.value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _excel_cells(columns: list[str], lines: Iterator[list[str | None]]) -> Iterator[Cells]:
    blank = 0
    for line in lines:
        if not any(line):
            blank += 1  # a sheet may end with thousands of them, which are not rows
            continue
        yield from itertools.repeat({}, blank)
        blank = 0
        yield dict(itertools.zip_longest(columns, line[: len(columns)]))
