"""Tables that mean harm: small files that stand for much, and cells that lead out of their file."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from tinylm.errors import UserError
from tinylm.text import encoding, formats, tables
from tinylm.text.tables import open_table

COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: bytes(pyarrow.compress(data, "zstd")),
}


def texts(path: Path, content: bytes) -> list[object]:
    path.write_bytes(content)
    return [row.get("text") for row in open_table(path, ["text"])]


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of what is held, small enough for a test."""
    monkeypatch.setattr(encoding, "MOST_IN_LINE", 1 << 16)
    for module in (encoding, formats, tables):
        monkeypatch.setattr(module, "MOST_AT_ONCE", 1 << 18)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("compress", COMPRESS.values(), ids=COMPRESS)
def test_a_line_without_end(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(b"text\n" + b"x" * (8 << 20))
    assert len(bomb) < 1 << 14
    with pytest.raises(UserError, match="has a line of more than"):
        texts(tmp_path / "a.csv.gz", bomb)
    with pytest.raises(UserError, match="has a line of more than"):
        texts(tmp_path / "a.jsonl.gz", compress(b'{"text": "one"}\n{"text": "' + b"x" * (8 << 20)))
    # Lines of ordinary length may be many.
    assert len(texts(tmp_path / "a.csv.gz", compress(b"text\n" + b"one two\n" * 100_000))) == 100_000


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("content", [b'[{"text": "one"},\n', b"[\n" * 1000])
def test_json_that_is_read_as_a_whole(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="in a form that is read as a whole"):
        texts(tmp_path / "a.json.gz", gzip.compress(content + b" \n" * (1 << 20)))


@pytest.mark.usefixtures("small_limits")
def test_a_compressed_table_in_a_binary_format(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in a form that is read as a whole"):
        texts(tmp_path / "a.parquet.gz", gzip.compress(b"PAR1" + bytes(4 << 20)))


def workbook(change: Callable[[bytes], bytes] = lambda part: part) -> bytes:
    """An Excel file with one text, its sheet changed."""
    book = openpyxl.Workbook()
    for cell in ("text", "one"):
        book.active.append([cell])
    book.save(saved := io.BytesIO())
    with (
        zipfile.ZipFile(saved) as source,
        zipfile.ZipFile(out := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as to,
    ):
        for name in source.namelist():
            part = source.read(name)
            to.writestr(name, change(part) if name.endswith("sheet1.xml") else part)
    return out.getvalue()


@pytest.mark.usefixtures("small_limits")
def test_a_workbook_that_unfolds(tmp_path: Path) -> None:
    assert texts(tmp_path / "a.xlsx", workbook()) == ["one"]
    with pytest.raises(UserError, match="in a form that is read as a whole"):
        texts(tmp_path / "a.xlsx", workbook(lambda part: part + b"<!--" + b" " * (4 << 20) + b"-->"))


def test_a_workbook_with_rows_beyond_any_sheet(tmp_path: Path) -> None:
    far = workbook(
        lambda part: part.replace(b'r="2"', b'r="99999999999"').replace(b'"A2"', b'"A99999999999"')
    )
    assert texts(tmp_path / "a.xlsx", far) == []


def test_a_workbook_of_entities(tmp_path: Path) -> None:
    """Ten entities, each ten times the one before."""
    entities = b"".join(b'<!ENTITY e%d "%s">' % (i, b"&e%d;" % (i - 1) * 10) for i in range(1, 12))
    doctype = b'<!DOCTYPE x [<!ENTITY e0 "lol">' + entities + b"]>"

    def laugh(part: bytes) -> bytes:
        head, _, rest = part.rpartition(b"<worksheet")
        return head + doctype + b"<worksheet" + rest.replace(b"</row>", b"<c><v>&e11;</v></c></row>")

    with pytest.raises(UserError):
        texts(tmp_path / "a.xlsx", workbook(laugh))


def test_columns_of_json_with_a_row_each(tmp_path: Path) -> None:
    """A thousand rows of a thousand columns would be a million cells of which a thousand are there."""
    columns = {"text": {"0": "one"}} | {f"c{i}": {str(i): i} for i in range(1, 1000)}
    (tmp_path / "a.json").write_text(json.dumps(columns))
    rows = list(open_table(tmp_path / "a.json", ["text"]))
    assert len(rows) == 1000
    assert sum(len(row.cells) for row in rows) == 1000


def test_rows_of_json_that_are_none(tmp_path: Path) -> None:
    split = {"columns": ["text", ["label"]], "data": [["one", "a"], 3, None, "two"]}
    (tmp_path / "a.json").write_text(json.dumps(split))
    rows = list(open_table(tmp_path / "a.json", ["text"]))
    assert [row.get("text") for row in rows] == ["one", None, None, None]
    assert [row.problem for row in rows] == [None, *["no JSON object"] * 3]


def test_offsets_that_lead_out_of_an_arrow_file(tmp_path: Path) -> None:
    array = pyarrow.array(["one", "two"])
    offsets = np.frombuffer(array.buffers()[1], np.int32).copy()
    offsets[1] = 1 << 30
    broken = pyarrow.StringArray.from_buffers(2, pyarrow.py_buffer(offsets), array.buffers()[2])
    table = pyarrow.table({"text": broken})
    with pyarrow.ipc.new_file(out := io.BytesIO(), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match="cannot be read"):
        texts(tmp_path / "a.arrow", out.getvalue())


@pytest.mark.parametrize(
    "note", [b"no JSON", b"[]", b"[" * 100_000, b'{"info": {"features": {"text": {"names": 3}}}}']
)
def test_notes_in_a_parquet_file_that_are_none(tmp_path: Path, note: bytes) -> None:
    table = pyarrow.table({"text": ["one"]}).replace_schema_metadata({b"huggingface": note})
    pyarrow.parquet.write_table(table, out := io.BytesIO())
    assert texts(tmp_path / "a.parquet", out.getvalue()) == ["one"]


def test_a_date_that_no_calendar_has(tmp_path: Path) -> None:
    dates = pyarrow.array([1 << 62], pyarrow.int64()).view(pyarrow.timestamp("us"))
    pyarrow.parquet.write_table(pyarrow.table({"text": dates}), out := io.BytesIO())
    with pytest.raises(UserError, match="has a cell that cannot be read"):
        texts(tmp_path / "a.parquet", out.getvalue())


def test_an_encoding_that_is_none_of_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\none\n")
    with pytest.raises(UserError, match="`encoding` is 'base64'"):
        open_table(tmp_path / "a.csv", ["text"], encoding="base64")
