"""From the name of a corpus to token ids and their tokenizer, kept in the cache folder.

Tokenizing is done once for each corpus and vocabulary: a second run of any command
finds the token store of the first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.system.files import locked
from tinylm.system.paths import cache_folder, cached
from tinylm.system.processes import LOCAL, Engine
from tinylm.text.corpus import Corpus, build_store, open_corpus
from tinylm.text.coverage import distinct_tokens
from tinylm.text.store import TokenIds, is_store, new_store, open_store
from tinylm.text.tasks import load_task
from tinylm.text.tokenizer import BERT, Tokenizer, load_tokenizer, train_tokenizer

# What a vocabulary is trained on is held in memory. More text does not change which tokens are frequent.
MOST_CHARACTERS = 300_000_000
PIECE = 100_000  # paragraphs of a selection in memory


@dataclass(frozen=True)
class TokenizedCorpus:
    """Paragraphs ready for pre-training.

    Attributes:
        paragraphs: packed token ids.
        tokenizer: the one that made them.
        meta: where they come from, see `build_store`.
    """

    paragraphs: TokenIds
    tokenizer: Tokenizer
    meta: dict[str, Any]


def held_out_titles(corpus: str | None) -> frozenset[str]:
    """Titles that `prepare` leaves out of a corpus: the test articles of `vital-topics`, of `vital`."""
    return load_task("vital-topics").test_titles if corpus == "vital" else frozenset()


def prepare(
    name: str,
    *,
    vocabulary: str | int | None = None,
    max_tokens: int = 128,
    text_column: str = "text",
    strip_accents: bool = False,
    engine: Engine = LOCAL,
) -> TokenizedCorpus:
    """Tokenize a corpus, or find it tokenized.

    Test articles of `vital-topics` are left out of `vital`, always: no model here
    has seen the texts that it may be tested on.

    Args:
        name: a token store, or a corpus as `open_corpus` takes it.
        vocabulary: a tokenizer as `load_tokenizer` takes it, or the number of tokens
            of one to train on the corpus; bert-base-uncased when None. A token store
            has its own.
        max_tokens: texts are cut there, [CLS] and [SEP] included.
        text_column: of tables.
        strip_accents: whether a vocabulary that is trained here leaves accents and other marks out, as
            that of bert-base-uncased does.
        engine: where it is tokenized; its workers must reach the cache folder.
    """
    if is_store(Path(name)):
        if vocabulary is not None:
            raise UserError(f"{name} is a token store with a vocabulary of its own; leave the tokenizer out.")
        paragraphs, meta = open_store(Path(name))
        return TokenizedCorpus(paragraphs, load_tokenizer(Path(name)), meta)
    if not name:  # what an unset shell variable gives; as a path, it would be the working folder
        raise UserError("the corpus has no name; expected vital, wikipedia, hf:NAME, a file, folder or glob.")
    return prepare_corpus(
        open_corpus(name, text_column),
        vocabulary=vocabulary,
        max_tokens=max_tokens,
        held_out=held_out_titles(name),
        text_column=text_column,
        strip_accents=strip_accents,
        engine=engine,
    )


def prepare_corpus(
    corpus: Corpus,
    *,
    vocabulary: str | int | None = None,
    max_tokens: int = 128,
    held_out: frozenset[str] = frozenset(),
    text_column: str = "text",
    strip_accents: bool = False,
    engine: Engine = LOCAL,
) -> TokenizedCorpus:
    """`prepare` for a corpus that is open already; articles titled as in `held_out` are left out."""
    tokenizer = None if isinstance(vocabulary, int) else load_tokenizer(vocabulary or BERT)
    key = {
        "corpus": [corpus.name, corpus.fingerprint, text_column],
        "vocabulary": tokenizer.fingerprint if tokenizer else vocabulary,
        "max_tokens": max_tokens,
        "held_out": sorted(held_out),
    }
    if tokenizer is None and not strip_accents:
        key["accents"] = "stay"
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    folder = cached(f"stores/{digest}")
    if not is_store(folder):
        with locked(cache_folder() / "locks" / digest):  # another process may be at the same
            if not is_store(folder):
                if tokenizer is None:
                    assert isinstance(vocabulary, int)
                    tokenizer = _trained_tokenizer(corpus, vocabulary, held_out, strip_accents)
                build_store(
                    corpus, tokenizer, folder, max_tokens=max_tokens, exclude_titles=held_out, engine=engine
                )
    paragraphs, meta = open_store(folder)
    return TokenizedCorpus(paragraphs, load_tokenizer(folder), meta)


def _trained_tokenizer(corpus: Corpus, size: int, held_out: frozenset[str], strip_accents: bool) -> Tokenizer:
    kept = spread(
        (article.text for article in corpus.articles() if article.title not in held_out), MOST_CHARACTERS
    )
    if not kept:
        found = ", ".join(f"{n:,} {reason}" for reason, n in corpus.unusable.items()) or "no rows"
        raise UserError(f"Corpus {corpus.name!r} has no usable paragraph ({found}).")
    return train_tokenizer(kept, size, strip_accents=strip_accents)


def spread(texts: Iterable[str], most: int) -> list[str]:
    """All texts of a stream; if they have more than `most` characters, every second, fourth, ..."""
    kept: list[str] = []
    characters, every = 0, 1
    for number, text in enumerate(texts):
        if number % every:
            continue
        kept.append(text)
        characters += len(text)
        while characters > most and len(kept) > 1:
            kept, every = kept[::2], 2 * every
            characters = sum(map(len, kept))
    return kept


def save_selection(
    source: TokenizedCorpus,
    rows: np.ndarray,
    folder: Path,
    facts: dict[str, Any],
    keep: np.ndarray | None = None,
) -> None:
    """Write the paragraphs `rows` as a new token store with its vocabulary and a record, piece by piece.

    Args:
        source: where they are taken from.
        rows: `int64 [W_S]`.
        folder: new.
        facts: how the rows were chosen, for the record and the store's meta.
        keep: `bool [vocab]`; the vocabulary is reduced to these tokens, the tokens of
            the selection and the special ones (the smaller embedding of section 2.1).
    """
    tokenizer = source.tokenizer
    new_id = None
    if keep is not None:
        used = keep.copy()
        for piece in _pieces(source.paragraphs, rows):
            used |= distinct_tokens(piece, len(tokenizer))
        used[tokenizer.special_ids] = True
        tokenizer = tokenizer.reduced(np.flatnonzero(used))
        new_id = (np.cumsum(used) - 1).astype(np.uint16)
    meta = source.meta | {"tokenizer": tokenizer.fingerprint, "selection": facts}
    with new_store(folder, meta) as writer:
        for piece in _pieces(source.paragraphs, rows):
            writer.append(piece if new_id is None else TokenIds(new_id[piece.ids], piece.offsets))
        tokenizer.save_vocab(writer.folder)
        writer.record = facts | {"corpus": source.meta, "w_s": len(rows)}


def _pieces(paragraphs: TokenIds, rows: np.ndarray) -> Iterator[TokenIds]:
    for first in range(0, len(rows), PIECE):
        yield paragraphs.take(rows[first : first + PIECE])
