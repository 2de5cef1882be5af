"""T_W, T_C and T_M: by hand, by Python sets, and the figures known for FewRel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinylm.errors import UserError
from tinylm.text import coverage as module
from tinylm.text.coverage import Coverage, coverage, distinct_tokens, token_counts
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import load_tokenizer

CLS, SEP, VOCAB = 1, 2, 12
PARAGRAPHS = st.lists(
    st.lists(st.integers(0, VOCAB - 1), max_size=5).map(lambda p: [CLS, *p, SEP]), min_size=1, max_size=8
)


def test_coverage_by_hand() -> None:
    w_s = TokenIds.from_lists([[CLS, 5, 6, SEP], [CLS, 5, 5, 7, SEP]])
    task = TokenIds.from_lists([[CLS, 5, 8, 8, SEP], [CLS, 9, 7, SEP], [CLS, 5, SEP]])
    # T_W = {CLS, SEP, 5, 6, 7}; T_C = {CLS, SEP, 5, 7, 8, 9}; of its 12 occurrences 8, 8 and 9 are missing.
    assert coverage(w_s, task, VOCAB) == Coverage(
        paragraphs=2, t_w=5, t_c=6, t_m=2, absent_from_task=1, weighted_overlap=9 / 12
    )


@given(PARAGRAPHS, PARAGRAPHS, st.integers(1, 20))
def test_coverage_equals_python_sets(w_s: list[list[int]], task: list[list[int]], chunk: int) -> None:
    t_w, t_c = set().union(*w_s), set().union(*task)
    occurrences = [token for text in task for token in text]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_TOKENS", chunk)
        counts = token_counts(TokenIds.from_lists(task), VOCAB)
        measured = coverage(TokenIds.from_lists(w_s), TokenIds.from_lists(task), VOCAB)
    assert counts.tolist() == [occurrences.count(token) for token in range(VOCAB)]
    assert (measured.t_w, measured.t_c) == (len(t_w), len(t_c))
    assert (measured.t_m, measured.absent_from_task) == (len(t_c - t_w), len(t_w - t_c))
    assert measured.weighted_overlap == sum(token in t_w for token in occurrences) / len(occurrences)


def test_an_id_outside_the_vocabulary_is_named() -> None:
    with pytest.raises(UserError, match="token id 12, but the vocabulary has 12"):
        distinct_tokens(TokenIds.from_lists([[CLS, SEP], [CLS, 12, SEP]]), VOCAB)


def test_a_task_without_texts_is_refused() -> None:
    with pytest.raises(UserError, match="hold no text"):
        coverage(TokenIds.from_lists([[CLS, SEP]]), TokenIds.from_lists([]), VOCAB)


# For label numbers by position among the sorted relation ids; the paper has 12,829, 13,959, 13,342 and
# 24,724 with the complete file, of which the copy that these figures belong to lacks 7 % of the rows.
FEWREL_ROWS = 41_634
FEWREL_T_C = [
    ([5, 10, 11, 16, 17, 25, 27, 33, 36, 39], 12_733),
    ([8, 13, 18, 23, 26, 30, 42, 49, 50, 56], 13_686),
    ([0, 2, 5, 10, 11, 16, 17, 36, 45, 63], 13_034),
    (list(range(64)), 24_568),
]


def test_t_c_of_fewrel(data_folder: Path) -> None:
    relations = json.loads((data_folder / "fewrel" / "train_wiki.json").read_text(encoding="utf-8"))
    if sum(map(len, relations.values())) != FEWREL_ROWS:
        pytest.skip(f"the figures belong to a FewRel file of {FEWREL_ROWS} rows")
    tokenizer = load_tokenizer(data_folder / "bert-base-uncased" / "vocab.txt")
    present = np.stack(
        [
            distinct_tokens(
                tokenizer.encode([" ".join(row["tokens"]) for row in rows], 128), len(tokenizer.vocab)
            )
            for _, rows in sorted(relations.items())
        ]
    )
    for labels, t_c in FEWREL_T_C:
        assert present[labels].any(axis=0).sum() == t_c
