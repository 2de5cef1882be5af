"""Token ids: many short paragraphs in two flat arrays, in memory or on disk.

A corpus of six million paragraphs does not fit into Python lists, and training
does not want padding. So paragraphs are packed: `ids` holds the tokens of all
of them one after the other and `offsets[i]:offsets[i + 1]` is paragraph `i`,
with [CLS] in front and [SEP] at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tinylm.errors import UserError
from tinylm.system.files import new_folder, write_json, write_record

IDS, OFFSETS, META = "ids.bin", "offsets.bin", "store.json"
MAX_ID = int(np.iinfo(np.uint16).max)
GATHER_TOKENS = 1 << 20


@dataclass(frozen=True)
class TokenIds:
    """Paragraphs as packed token ids.

    Attributes:
        ids: `uint16 [tokens]`, every paragraph with its [CLS] and [SEP].
        offsets: `int64 [paragraphs + 1]`, first entry 0, last entry `len(ids)`.
    """

    ids: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each paragraph, `int64 [paragraphs]`."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> TokenIds:
        """The paragraphs `rows` (`int [n]`), in that order, copied into memory."""
        rows = np.asarray(rows, dtype=np.int64)
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        taken = TokenIds(np.empty(offsets[-1], self.ids.dtype), offsets)
        # The index of a gather takes 16 bytes for each token of 2, so gather a part at a time.
        for first, end in batches_of(taken, GATHER_TOKENS):
            shifts = np.repeat(starts[first:end] - offsets[first:end], lengths[first:end])
            target = slice(offsets[first], offsets[end])
            taken.ids[target] = self.ids[np.arange(target.start, target.stop) + shifts]
        return taken

    def cut(self, max_tokens: int) -> TokenIds:
        """Every paragraph shortened to `max_tokens`, its last token ([SEP]) kept."""
        lengths = self.lengths
        if not len(lengths) or lengths.max() <= max_tokens:
            return self
        kept = np.minimum(lengths, max_tokens)
        offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1] - offsets[:-1], kept)
        source[offsets[1:] - 1] = self.offsets[1:] - 1
        return TokenIds(self.ids[source], offsets)

    @classmethod
    def from_lists(cls, paragraphs: Iterable[Iterable[int]]) -> TokenIds:
        """Pack paragraphs given as sequences of ids below 65,536.

        Raises:
            UserError: an id that does not fit.
        """
        arrays = [np.asarray(list(p), dtype=np.int64) for p in paragraphs]
        offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays])]).astype(np.int64)
        ids = np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
        # numpy would wrap them around without a word.
        if unfit := ids[(ids < 0) | (ids > MAX_ID)].tolist():
            raise UserError(f"Token id {unfit[0]} cannot be stored; ids must be from 0 to {MAX_ID}.")
        return cls(ids.astype(np.uint16), offsets)

    def save(self, folder: Path, meta: dict[str, Any]) -> None:
        """Write the paragraphs and `meta` to a new folder, all or nothing."""
        with new_store(folder, meta) as writer:
            writer.append(self)


class StoreWriter:
    """Writes a token store piece by piece, so that memory stays bounded; `new_store` makes one.

    Attributes:
        folder: where the files are until the store is complete; more can be written beside them.
        meta: what `open_store` will give back, along with the sizes.
        record: facts for the record of the folder; None writes none.
    """

    def __init__(self, folder: Path, meta: dict[str, Any], ids: BinaryIO, offsets: BinaryIO) -> None:
        self.folder, self.meta = folder, dict(meta)
        self.record: dict[str, Any] | None = None
        self.paragraphs = self.tokens = 0
        self._ids, self._offsets = ids, offsets
        offsets.write(np.zeros(1, np.int64).data)

    def append(self, paragraphs: TokenIds) -> None:
        """Add paragraphs behind those already written."""
        # Not by `tofile`, whose errors do not tell that the disk is full.
        self._ids.write(np.ascontiguousarray(paragraphs.ids, dtype=np.uint16).data)
        self._offsets.write((paragraphs.offsets[1:].astype(np.int64) + self.tokens).data)
        self.tokens += int(paragraphs.offsets[-1])
        self.paragraphs += len(paragraphs)


@contextmanager
def new_store(folder: Path, meta: dict[str, Any]) -> Iterator[StoreWriter]:
    """Write a token store to a new folder, all or nothing."""
    with new_folder(folder) as temporary:
        with (temporary / IDS).open("wb") as ids, (temporary / OFFSETS).open("wb") as offsets:
            writer = StoreWriter(temporary, meta, ids, offsets)
            yield writer
        sizes = {"paragraphs": writer.paragraphs, "tokens": writer.tokens}
        write_json(temporary / META, writer.meta | sizes, indent=2)
        if writer.record is not None:
            write_record(temporary, "corpus", **writer.record)


def is_store(folder: Path) -> bool:
    """Whether `folder` holds a finished token store."""
    return (Path(folder) / META).is_file()


def open_store(folder: Path) -> tuple[TokenIds, dict[str, Any]]:
    """Open a token store without reading it into memory.

    Returns:
        The paragraphs, memory-mapped, and the store's `meta`.

    Raises:
        UserError: no store there, a damaged `store.json`, or files of another size than it says.
    """
    folder = Path(folder)
    if not is_store(folder):
        raise UserError(f"{folder} is not a token store: {META} is missing; make one with 'tinylm corpus'.")
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        expected = {IDS: 2 * meta["tokens"], OFFSETS: 8 * (meta["paragraphs"] + 1)}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / META} is damaged ({error}); build the store again.") from error
    for name, size in expected.items():
        found = (folder / name).stat().st_size if (folder / name).exists() else 0
        if found != size:
            raise UserError(
                f"{folder / name} has {found} bytes where {META} says {size}; build the store again."
            )
    ids = np.memmap(folder / IDS, np.uint16, "r") if meta["tokens"] else np.zeros(0, np.uint16)
    offsets = np.fromfile(folder / OFFSETS, np.int64)
    return TokenIds(ids, offsets), meta


def batches_of(paragraphs: TokenIds, tokens: int) -> Iterator[tuple[int, int]]:
    """Row ranges `(first, last + 1)` of at most `tokens` tokens each (but at least one row), in order."""
    row = 0
    while row < len(paragraphs):
        end = int(np.searchsorted(paragraphs.offsets, paragraphs.offsets[row] + tokens, "right")) - 1
        end = max(end, row + 1)
        yield row, end
        row = end
