"""The selections of W_S against brute force with Python sets and against HuggingFace `datasets`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import assume, given
from hypothesis import strategies as st

from tinylm.errors import UserError
from tinylm.text import coverage as coverage_module
from tinylm.text.coverage import coverage, distinct_tokens
from tinylm.text.select import custom_made_rows, mismatched_rows, random_rows, same_lengths_rows
from tinylm.text.store import TokenIds, open_store

CLS, SEP, VOCAB = 1, 2, 12
PARAGRAPHS = st.lists(
    st.lists(st.integers(3, VOCAB - 1), max_size=5).map(lambda p: [CLS, *p, SEP]), min_size=1, max_size=12
)
TOKENS = st.sets(st.integers(3, VOCAB - 1))


def mask(tokens: set[int], vocab_size: int = VOCAB) -> np.ndarray:
    return np.isin(np.arange(vocab_size), list(tokens))


@pytest.fixture(scope="module")
def corpus() -> TokenIds:
    """3,000 paragraphs of 10 to 60 tokens, frequencies as in Zipf's law, vocabulary of 2,000."""
    rng = np.random.default_rng(0)
    tokens = np.arange(3, 2000)
    share = 1 / np.arange(1, len(tokens) + 1)
    tokens = rng.permutation(tokens)
    lengths = rng.integers(8, 59, 3000)
    return TokenIds.from_lists(
        [CLS, *rng.choice(tokens, n, p=share / share.sum()).tolist(), SEP] for n in lengths
    )


@pytest.fixture(scope="module")
def task(corpus: TokenIds) -> TokenIds:
    return corpus.take(np.arange(150))


def t_m(corpus: TokenIds, rows: np.ndarray, task: TokenIds) -> int:
    return coverage(corpus.take(rows), task, 2000).t_m


@pytest.mark.parametrize("seed", [42, 7])
def test_random_equals_huggingface_datasets(seed: int) -> None:
    dataset = Dataset.from_dict({"row": list(range(1000))})
    expected = dataset.shuffle(seed=seed).select(range(300))["row"]
    rows = random_rows(1000, 300, seed)
    assert rows.tolist() == list(expected)
    assert rows.dtype == np.int64


@given(PARAGRAPHS, TOKENS, st.integers(1, 20))
def test_custom_made_keeps_exactly_the_paragraphs_of_allowed_tokens(
    lists: list[list[int]], allowed: set[int], chunk: int
) -> None:
    expected = {row for row, p in enumerate(lists) if set(p) <= allowed | {CLS, SEP}}
    assume(expected)
    paragraphs = TokenIds.from_lists(lists)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage_module, "CHUNK_TOKENS", chunk)
        rows = custom_made_rows(paragraphs, mask(allowed))
    assert len(rows) == len(expected)
    assert set(rows.tolist()) == expected
    half = (len(rows) + 1) // 2
    assert custom_made_rows(paragraphs, mask(allowed), half).tolist() == rows[:half].tolist()


@given(PARAGRAPHS, TOKENS, st.data())
def test_mismatched_draws_from_the_fewest_frequent_task_tokens(
    lists: list[list[int]], in_task: set[int], data: st.DataObject
) -> None:
    w_s = data.draw(st.integers(1, len(lists)))
    occurrences = [token for p in lists for token in p]
    by_frequency = sorted(in_task, key=lambda token: (-occurrences.count(token), token))
    for r in range(len(by_frequency) + 1):
        avoided = set(by_frequency[r:])
        qualifying = {row for row, p in enumerate(lists) if avoided.isdisjoint(p)}
        if len(qualifying) >= w_s:
            break
    rows = mismatched_rows(TokenIds.from_lists(lists), mask(in_task | {CLS, SEP}), w_s)
    assert len(set(rows.tolist())) == len(rows) == w_s
    # Exactly these qualify: the first of the seeded shuffle, as random rows would be of them alone.
    shuffled = np.random.default_rng(42).permutation(len(lists)).tolist()
    assert rows.tolist() == [row for row in shuffled if row in qualifying][:w_s]


def test_mismatched_avoids_a_token_more_frequent_than_cls() -> None:
    paragraphs = TokenIds.from_lists(
        [[CLS, *[5] * 9, SEP], [CLS, 6, SEP], [CLS, *[5] * 9, SEP], [CLS, 6, SEP]]
    )
    rows = mismatched_rows(paragraphs, mask({CLS, 5, SEP}), 2)
    assert set(rows.tolist()) == {1, 3}


def test_mismatched_misses_more_of_the_task_than_random(corpus: TokenIds, task: TokenIds) -> None:
    in_task = distinct_tokens(task, 2000)
    random = t_m(corpus, random_rows(len(corpus), 200), task)
    assert t_m(corpus, mismatched_rows(corpus, in_task, 200), task) > 2 * random


def test_mismatched_reaches_a_wanted_t_m(corpus: TokenIds, task: TokenIds) -> None:
    in_task = distinct_tokens(task, 2000)
    smallest = t_m(corpus, random_rows(len(corpus), 200), task)
    largest = t_m(corpus, mismatched_rows(corpus, in_task, 200), task)
    for missing in np.linspace(smallest, largest, 6).astype(int).tolist():
        rows = mismatched_rows(corpus, in_task, 200, missing)
        assert len(set(rows.tolist())) == 200
        assert abs(t_m(corpus, rows, task) - missing) <= 3
    for unreachable in (smallest - 1, largest + 1):
        with pytest.raises(UserError, match=rf"T_M {unreachable} .* from {smallest} .* to {largest} "):
            mismatched_rows(corpus, in_task, 200, unreachable)


def test_the_same_lengths_are_drawn_in_the_order_of_the_shuffle(corpus: TokenIds, task: TokenIds) -> None:
    like = mismatched_rows(corpus, distinct_tokens(task, 2000), 200)
    lengths = [len(corpus[row]) for row in range(len(corpus))]
    wanted = [lengths[row] for row in like]
    by_hand = []
    for row in np.random.default_rng(42).permutation(len(corpus)):
        if lengths[row] in wanted:
            wanted.remove(lengths[row])
            by_hand.append(int(row))
    found = same_lengths_rows(corpus, like)
    assert found.tolist() == by_hand and len(found) == 200
    assert t_m(corpus, found, task) < t_m(corpus, like, task)


def test_same_seed_same_rows_other_seed_other_rows(corpus: TokenIds, task: TokenIds) -> None:
    in_task = distinct_tokens(task, 2000)
    selections: list[Callable[[int], np.ndarray]] = [
        lambda seed: random_rows(len(corpus), 100, seed),
        lambda seed: custom_made_rows(corpus, in_task, 100, seed),
        lambda seed: mismatched_rows(corpus, in_task, 100, 600, seed),
    ]
    for select in selections:
        assert select(1).tolist() == select(1).tolist()
        assert select(1).tolist() != select(2).tolist()


def test_all_selections_are_random_when_every_token_is_allowed(corpus: TokenIds) -> None:
    expected = random_rows(len(corpus), 100).tolist()
    assert custom_made_rows(corpus, np.ones(2000, bool), 100).tolist() == expected
    assert mismatched_rows(corpus, np.zeros(2000, bool), 100).tolist() == expected


def test_a_store_on_disk_gives_the_same_rows(corpus: TokenIds, task: TokenIds, tmp_path: Path) -> None:
    corpus.save(tmp_path / "corpus", {})
    on_disk, _ = open_store(tmp_path / "corpus")
    in_task = distinct_tokens(task, 2000)
    assert custom_made_rows(on_disk, in_task).tolist() == custom_made_rows(corpus, in_task).tolist()
    assert (
        mismatched_rows(on_disk, in_task, 200, 400).tolist()
        == mismatched_rows(corpus, in_task, 200, 400).tolist()
    )


def test_masks_are_left_as_they_were(corpus: TokenIds) -> None:
    nothing, everything = np.zeros(2000, bool), np.ones(2000, bool)
    with pytest.raises(UserError):
        custom_made_rows(corpus, nothing)
    mismatched_rows(corpus, everything, 10)
    assert not nothing.any()
    assert everything.all()


@pytest.mark.parametrize("w_s", [0, 4])
def test_w_s_must_fit_the_corpus(w_s: int) -> None:
    paragraphs = TokenIds.from_lists([[CLS, 5, SEP]] * 3)
    selections: list[Callable[[], np.ndarray]] = [
        lambda: random_rows(3, w_s),
        lambda: custom_made_rows(paragraphs, mask({5}), w_s),
        lambda: mismatched_rows(paragraphs, mask({5}), w_s),
    ]
    for select in selections:
        with pytest.raises(UserError, match=rf"W_S is {w_s}, .* 1 to the 3 paragraphs"):
            select()


def test_custom_made_says_how_many_qualify() -> None:
    paragraphs = TokenIds.from_lists([[CLS, 5, SEP], [CLS, 5, 6, SEP], [CLS, 6, SEP]])
    with pytest.raises(UserError, match=r"^1 of 3 paragraphs .* but W_S is 2"):
        custom_made_rows(paragraphs, mask({CLS, 5, SEP}), 2)
    with pytest.raises(UserError, match=r"^0 of 3 paragraphs .* needs at least 1"):
        custom_made_rows(paragraphs, mask({CLS, 7, SEP}))


def test_a_mask_of_another_vocabulary_is_refused() -> None:
    paragraphs = TokenIds.from_lists([[CLS, 5, 11, SEP]])
    with pytest.raises(UserError, match="token id 11, but the vocabulary has 6"):
        custom_made_rows(paragraphs, mask({5}, 6))
    with pytest.raises(UserError, match="token id 11, but the vocabulary has 6"):
        mismatched_rows(paragraphs, mask({5}, 6), 1)
