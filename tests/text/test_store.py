"""Packing, reading rows, and stores on disk that are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinylm.errors import UserError
from tinylm.text import store
from tinylm.text.store import TokenIds, batches_of, is_store, new_store, open_store

LISTS = st.lists(st.lists(st.integers(0, 65535), max_size=6), max_size=12)
SOME = [[101, 7, 102], [101, 102], [101, 65535, 0, 9, 102]]


def as_lists(paragraphs: TokenIds) -> list[list[int]]:
    return [paragraphs[row].tolist() for row in range(len(paragraphs))]


@given(LISTS)
def test_packing_keeps_every_paragraph(lists: list[list[int]]) -> None:
    packed = TokenIds.from_lists(lists)
    assert as_lists(packed) == lists
    assert packed.lengths.tolist() == [len(p) for p in lists]
    assert packed.ids.dtype == np.uint16
    assert packed.offsets.dtype == np.int64


@given(st.data())
def test_take_equals_indexing_whatever_the_gather_size(data: st.DataObject) -> None:
    lists = data.draw(LISTS.filter(len))
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "GATHER_TOKENS", data.draw(st.integers(1, 10)))
        taken = TokenIds.from_lists(lists).take(np.array(rows))
    assert as_lists(taken) == [lists[row] for row in rows]


@given(LISTS, st.integers(1, 15))
def test_batches_cover_all_rows_once_within_the_limit(lists: list[list[int]], tokens: int) -> None:
    batches = list(batches_of(TokenIds.from_lists(lists), tokens))
    assert [row for first, end in batches for row in range(first, end)] == list(range(len(lists)))
    for first, end in batches:
        assert end - first == 1 or sum(len(p) for p in lists[first:end]) <= tokens


@pytest.mark.parametrize("unfit", [65536, -1])
def test_an_id_that_does_not_fit_is_refused_not_wrapped(unfit: int) -> None:
    with pytest.raises(UserError, match=f"Token id {unfit} "):
        TokenIds.from_lists([[1, 2], np.array([3, unfit])])


def test_a_store_written_in_pieces_reads_back_equal(tmp_path: Path) -> None:
    with new_store(tmp_path / "corpus", {"source": "made up"}) as writer:
        writer.append(TokenIds.from_lists(SOME[:2]))
        writer.append(TokenIds.from_lists([]))
        writer.append(TokenIds.from_lists(SOME[2:]))
    paragraphs, meta = open_store(tmp_path / "corpus")
    assert as_lists(paragraphs) == SOME
    assert isinstance(paragraphs.ids, np.memmap)
    assert as_lists(paragraphs.take(np.array([2, 0]))) == [SOME[2], SOME[0]]
    assert meta == {"source": "made up", "paragraphs": 3, "tokens": 10}


def test_an_empty_store_reads_back(tmp_path: Path) -> None:
    TokenIds.from_lists([]).save(tmp_path / "corpus", {})
    assert len(open_store(tmp_path / "corpus")[0]) == 0


def test_nothing_is_left_of_a_store_that_failed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_store(tmp_path / "corpus", {}) as writer:
        writer.append(TokenIds.from_lists(SOME))
        assert not is_store(tmp_path / "corpus")
        raise RuntimeError("power cut")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_a_full_one_or_a_file_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    TokenIds.from_lists(SOME).save(tmp_path / "empty", {})
    (tmp_path / "file").write_text("mine")
    for name in ("empty", "file"):
        with pytest.raises(UserError, match=f"{name} exists"):
            TokenIds.from_lists(SOME).save(tmp_path / name, {})
    assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    with pytest.raises(UserError, match="corpus is not a token store"):
        open_store(folder)
    TokenIds.from_lists(SOME).save(folder, {})
    ids = (folder / store.IDS).read_bytes()
    (folder / store.IDS).write_bytes(ids[:-3])
    with pytest.raises(UserError, match=r"ids\.bin has 17 bytes where store\.json says 20"):
        open_store(folder)
    (folder / store.IDS).unlink()
    with pytest.raises(UserError, match=r"ids\.bin has 0 bytes"):
        open_store(folder)
    for text in ("{", json.dumps({"tokens": 10}), "[]"):
        (folder / store.META).write_text(text)
        with pytest.raises(UserError, match=r"store\.json is damaged"):
            open_store(folder)
