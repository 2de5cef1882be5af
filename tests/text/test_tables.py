"""Tables as spreadsheets, pandas, `datasets` and other tools write them; texts and labels are made up."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import threading
from pathlib import Path
from typing import Any

import datasets
import openpyxl
import pandas
import polars
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from tinylm.errors import UserError
from tinylm.text.labelled import Labelled, read_labelled, read_texts
from tinylm.text.tables import open_table

TEXTS = ["The kettle is loud, but good", 'He said "boil" twice', "a; b | c", "line\nbreak", "plain"]
LABELS = ["kitchen", "kitchen", "misc", "misc", "kitchen"]


def read(path: Path, content: bytes | str, **options: Any) -> Labelled:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labelled(str(path), options.pop("text", "text"), options.pop("label", "label"), **options)


def as_csv(**options: Any) -> str:
    target = io.StringIO()
    csv.writer(target, **options).writerows(
        [("id", "text", "label"), *zip(range(5), TEXTS, LABELS, strict=True)]
    )
    return target.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", "~", "\x01"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_delimiter_is_found_from_the_header(tmp_path: Path, name: str, delimiter: str) -> None:
    for before in ("", "\ufeff"):
        found = read(tmp_path / name, before + as_csv(delimiter=delimiter))
        assert (found.texts, found.labels, found.unusable) == (TEXTS, LABELS, {})


def test_what_excel_and_r_add(tmp_path: Path) -> None:
    rows = "text;label\na, b;x\nc;y\n"
    assert read(tmp_path / "a.csv", "sep=;\n" + rows).texts == ["a, b", "c"]
    spaced = read(tmp_path / "a.csv", 'text, label\na, x\n"c, d", y\n')
    assert (spaced.texts, spaced.labels) == (["a", "c, d"], ["x", "y"])
    assert read(tmp_path / "a.csv", '"text","label"\n"1","a","x"\n"2","b","y"\n').texts == ["a", "b"]
    assert read(tmp_path / "a.csv", "text,label\na,x,\nb,y,\n").labels == ["x", "y"]
    assert read(tmp_path / "a.csv", '"How was\nit?",label\na,x\nb,y\n', text="How was it?").texts == [
        "a",
        "b",
    ]


def test_cells_never_move_to_another_column(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", "id,text,label\n1,a,x\n2,b, they say,y\n3,x\n4,d,y\n\n5,,x\n")
    assert (found.texts, found.labels) == (["a", "d"], ["x", "y"])
    assert found.unusable == {"more cells than columns": 1, "fewer cells than columns": 1, "empty text": 1}
    assert "must stand in quotes" in found.in_words()


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        ('"He said "hi" to me",x', ['He said "hi" to me']),
        ('5" pipe,x', ['5" pipe']),
        (r'"He said \"hi, you\" to me",x', ['He said "hi, you" to me']),  # as Spark writes it
        ('"Well, he began,x', []),  # where the text ends is not known
        ('"ends here"",x', []),
    ],
)
def test_a_stray_quote_costs_at_most_its_row(tmp_path: Path, lines: str, texts: list[str]) -> None:
    found = read(
        tmp_path / "a.csv", f'text,label\nfirst,y\n{lines}\n"more, of it",y\n"two\nlines",y\nlast,y\n'
    )
    assert found.texts == ["first", *texts, "more, of it", "two\nlines", "last"]
    assert found.unusable == ({} if texts else {"stray quotes": 1})


def test_well_written_tables_are_read_as_the_csv_module_reads_them(tmp_path: Path) -> None:
    chance = random.Random(0)
    for _ in range(30):
        texts = ["x" + "".join(chance.choices('ab "\n,;\t|\\', k=chance.randint(1, 9))) for _ in range(6)]
        target = io.StringIO()
        csv.writer(target, quoting=chance.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))).writerows(
            [("text", "label"), *((text, "n") for text in texts)]
        )
        assert read(tmp_path / "a.csv", target.getvalue()).texts == texts


PAGES = {
    "cp1252": "Die Tür schließt nicht, größer wäre schöner",
    "cp1250": "Zażółć gęślą jaźń, przesyłka dotarła późno",
    "cp1251": "Посылка пришла поздно и была повреждена",
    "cp1253": "Το πακέτο άργησε πολύ και ήταν ανοιχτό",
    "cp1254": "Işık çalışmıyor, çok kötü bir ürün, değil mi",
    "cp932": "荷物が遅れて届きました。とても残念です",
    "gb18030": "包裹来得太晚了,而且已经损坏",
}


@pytest.mark.parametrize("codec", PAGES)
def test_a_code_page_is_found_and_said(tmp_path: Path, codec: str) -> None:
    text = f"text;label\n{PAGES[codec]};x\nplain;y\n"
    found = read(tmp_path / "a.csv", text.encode(codec))
    assert found.texts == [PAGES[codec], "plain"]
    assert "(guessed)" in found.in_words()
    named = read(tmp_path / "a.csv", text.encode(codec), encoding=codec)
    assert named.texts == found.texts and "(guessed)" not in named.in_words()


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.txt"])  # Excel calls its "Unicode text" .txt
def test_unicode_in_all_its_forms(tmp_path: Path, name: str, codec: str) -> None:
    found = read(tmp_path / name, "text\tlabel\nschön 😀\tx\nplain words\ty\n".encode(codec))
    assert found.texts == ["schön 😀", "plain words"]
    assert "(guessed)" not in found.in_words()


def test_some_damaged_rows_do_not_change_the_encoding(tmp_path: Path) -> None:
    lines = ["text,label", *("schön und gut,x" for _ in range(20))]
    found = read(tmp_path / "a.csv", "\n".join(lines).encode() + b"\nkaputt \xe4,x\n")
    assert len(found.texts) == 20 and found.unusable == {"not UTF-8": 1}
    with pytest.raises(UserError, match="`encoding` is 'windows'; expected the name of one"):
        read(tmp_path / "a.csv", "text,label\na,x\n", encoding="windows")


def test_a_late_letter_tells_the_encoding_of_a_large_file(tmp_path: Path) -> None:
    content = "text,label\n" + "nothing but ascii,x\n" * 20_000 + "Tür,x\n"
    assert read(tmp_path / "a.csv", content.encode("cp1252")).texts[-1] == "Tür"


ROWS = [{"text": "a", "label": "x", "n": {"deep": "A"}}, {"text": "b", "label": "y", "n": {"deep": "B"}}]
FRAME = pandas.DataFrame(ROWS)[["text", "label"]]
JSONS = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "one after the other": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "array": json.dumps(ROWS),
    "pretty array": json.dumps(ROWS, indent=2),
    "array in an object": json.dumps({"version": 1, "data": ROWS}),
    **{orient: FRAME.to_json(orient=orient) for orient in ("columns", "index", "split", "table", "records")},
    "lists": json.dumps(FRAME.to_dict(orient="list")),
}


@pytest.mark.parametrize("form", JSONS)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_json_in_every_form(tmp_path: Path, name: str, form: str) -> None:
    found = read(tmp_path / name, JSONS[form])
    assert (found.texts, found.labels) == (["a", "b"], ["x", "y"])


def test_json_with_nested_missing_and_damaged_rows(tmp_path: Path) -> None:
    rows = [
        '{"n": {"deep": "first"}}',
        '{"n": {"deep": "a"}, "y": 1}',
        '{"y": 2}',
        '{"n": {"deep": "b"}, "y": 2}',
    ]
    content = "\n".join(
        [*rows, '{"n": {"deep": "c"}, "y": NaN}', '{"n": {"deep": "d"}, "y": null}', '{"n": {']
    )
    found = read(tmp_path / "a.jsonl", content, text="n.deep", label="y")
    assert (found.texts, found.labels) == (["a", "b"], [1, 2])
    assert found.unusable == {"no label": 3, "no text": 1, "no JSON object": 1}
    with pytest.raises(UserError, match=r"a.jsonl has no column 'z'; it has 'n', 'y'"):
        read(tmp_path / "a.jsonl", content, text="n.deep", label="z")
    with pytest.raises(UserError, match=r"column 'n' is an object; name one of its entries as n.deep"):
        read(tmp_path / "a.jsonl", content, text="n.deep", label="n")


def test_fasttext(tmp_path: Path) -> None:
    one = read(tmp_path / "a.train", "__label__tea A cup\n__label__cake A slice\nno label\n")
    assert (one.texts, one.labels, one.unusable) == (["A cup", "A slice"], ["tea", "cake"], {"no label": 1})
    several = read(tmp_path / "a.txt", "__label__tea __label__cake both\n__label__tea A cup\n")
    assert several.labels == [["tea", "cake"], ["tea"]]
    assert read_texts(str(tmp_path / "a.txt"), "text") == ["both", "A cup"]
    behind = read(tmp_path / "b.txt", "A cup __label__tea\nA slice __label__cake\n")
    assert (behind.texts, behind.labels) == (["A cup", "A slice"], ["tea", "cake"])


def test_arrow_and_parquet_with_the_names_of_classes(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": names, "tags": datasets.List(names)}
    )
    columns = {"text": ["a", "b", "c"], "label": [1, 0, -1], "tags": [[0], [0, 1], []]}
    data = datasets.Dataset.from_dict(columns, features=features)
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "dict")
    for source in ("a.parquet", "saved", "dict/train"):
        one = read_labelled(str(tmp_path / source), "text", "label")
        assert (one.labels, one.unusable) == (["good", "bad"], {"no label": 1})
        several = read_labelled(str(tmp_path / source), "text", "tags")
        assert several.labels == [["bad"], ["bad", "good"], []]
    with pytest.raises(UserError, match="it has the splits train"):
        read_labelled(str(tmp_path / "dict"), "text", "label")


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.arrow", "a.parquet.gz"])
def test_columns_of_arrow_of_any_type(tmp_path: Path, name: str) -> None:
    frame = pyarrow.table(
        {
            "text": pyarrow.array([b"a", b"b", "c ü".encode()], pyarrow.binary()),
            "label": pyarrow.array([1.0, float("nan"), 2.0]),
            "named": pyarrow.array(["x", "y", None]).dictionary_encode(),
        }
    )
    target = io.BytesIO()
    if name.endswith(".feather"):
        pyarrow.feather.write_feather(frame, target)
    elif name.endswith(".arrow"):
        with pyarrow.ipc.new_stream(target, frame.schema) as writer:
            writer.write_table(frame)
    else:
        pyarrow.parquet.write_table(frame, target)
    content = gzip.compress(target.getvalue()) if name.endswith(".gz") else target.getvalue()
    numbers = read(tmp_path / name, content)
    assert (numbers.texts, numbers.labels, numbers.unusable) == (["a", "c ü"], [1, 2], {"no label": 1})
    assert read(tmp_path / name, content, label="named").labels == ["x", "y"]


def test_excel(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    rows = [["text", "label"], ["a", 1], [12, 2.0], ["#N/A", 2], [None, None], ["d", "#DIV/0!"], [None, None]]
    for row in rows:
        book.create_sheet("Data") if "Data" not in book.sheetnames else None
        book["Data"].append(row)
    book.save(tmp_path / "a.xlsx")
    found = read_labelled(str(tmp_path / "a.xlsx"), "text", "label")
    assert (found.texts, found.labels) == (["a", "12"], [1, 2])
    assert found.unusable == {"no text": 2, "no label": 1}
    (tmp_path / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0 and so on")
    with pytest.raises(UserError, match="old or an encrypted Excel file; save it as"):
        read_labelled(str(tmp_path / "old.xls"), "text", "label")


COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compression_is_seen_whatever_the_name(tmp_path: Path, suffix: str) -> None:
    packed = COMPRESS[suffix](as_csv(delimiter=";").encode())
    for name in (f"a.csv.{suffix}", "a.csv"):
        assert read(tmp_path / name, packed).texts == TEXTS
    with pytest.raises(UserError, match=r"a.csv cannot be read after row \d"):
        read(tmp_path / "a.csv", packed[: len(packed) // 2])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_named_pipes(tmp_path: Path) -> None:
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": "a", "label": "x"}]), parquet)
    contents = [b"text;label\na;x\n", "text,label\nTür,x\n".encode("cp1252"), JSONS["array"].encode()]
    for content in (*contents, gzip.compress(contents[0]), parquet.getvalue()):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=[content])
        writer.start()
        assert read_labelled(str(pipe), "text", "label").labels[0] == "x"
        writer.join()
        pipe.unlink()


def test_several_text_columns(tmp_path: Path) -> None:
    rows = "title,body,label\nTea,is hot,x\n,only body,y\nonly title,,y\n,,x\n"
    found = read(tmp_path / "a.csv", rows, text=["title", "body"])
    assert found.texts == ["Tea is hot", "only body", "only title"]
    assert found.unusable == {"empty text": 1}
    with pytest.raises(UserError, match="Give several columns one by one: 'title', then 'body'"):
        read(tmp_path / "a.csv", rows, text="title,body")


def test_a_table_without_a_delimiter_may_hold_any(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\na, b\nc; d\n")
    assert [row.get("text") for row in open_table(tmp_path / "a.csv", ["text"])] == ["a, b", "c; d"]


def test_columns_that_are_not_there_or_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.csv has no column 'text'; it has 'body', 'label'"):
        read(tmp_path / "a.csv", "body;label\na;x\n")
    with pytest.raises(UserError, match="has 2 columns that are named 'label'"):
        read(tmp_path / "a.csv", "text,label,label\na,x,y\n")
    with pytest.raises(UserError, match=r"has 'Text', 'LABEL'. Capitals matter: name the column 'Text'"):
        read(tmp_path / "a.csv", "Text ,LABEL\na,x\n")
    with pytest.raises(UserError, match=r"it has 'text:label'. Separate cells by commas, semicolons, tabs"):
        read(tmp_path / "a.csv", "text:label\na:x\n")
    for nothing in ("\n\n", "\ufeff"):
        with pytest.raises(UserError, match="it has none"):
            read(tmp_path / "a.csv", nothing)


def test_frames_that_went_through_a_file(tmp_path: Path) -> None:
    frame = polars.DataFrame({"text": TEXTS, "label": LABELS})
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.ndjson")
    frame.to_pandas().to_csv(tmp_path / "b.csv")
    for name in ("a.csv", "a.parquet", "a.ndjson", "b.csv"):
        found = read_labelled(str(tmp_path / name), "text", "label")
        assert (found.texts, found.labels) == (TEXTS, LABELS)
