"""Committees and their subsets, against cases worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.paper import MadeUp, panel, row, store

from tinylm.paper.committees import store_committees
from tinylm.paper.open_questions import open_questions
from tinylm.paper.results import Results
from tinylm.paper.view import load_results
from tinylm.report.document import Document, markdown

TRUTH = np.array([0, 0, 1, 1], np.int16)


def logits(*toward_truth: float) -> np.ndarray:
    """Logits of four texts, each so far for its true label (negative: for the other one)."""
    out = np.zeros((4, 2), np.float16)
    out[range(4), TRUTH] = toward_truth
    return out


def member(trials: Sequence[tuple[np.ndarray, np.ndarray]]) -> MadeUp:
    """A member with these test and validation logits in each trial."""
    return MadeUp(
        [float(np.mean(test.argmax(1) == TRUTH)) for test, _ in trials],
        logits=[
            {"test": test, "test_labels": TRUTH, "validation": held, "validation_labels": TRUTH}
            for test, held in trials
        ],
    )


SURE, UNSURE, WRONG = logits(3, 3, 3, 3), logits(1, 1, 1, -2), logits(-2, -2, -2, -2)
MEMBERS = {
    "a": member([(WRONG, UNSURE), (WRONG, UNSURE)]),
    "b": member([(UNSURE, logits(1, 1, 0.5, 3)), (UNSURE, UNSURE)]),
    "c": member([(SURE, WRONG), (SURE, logits(1, 1, 1, 1))]),
}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    rows = [row(name, role="member") for name in MEMBERS]
    spec = {"analysis": "committee-size", "panels": [panel(rows)]}
    results = store(tmp_path, "question", spec, {"": MEMBERS})
    assert store_committees(results) == []
    return results


def test_the_committee_is_the_sum_of_its_members(results: Results):
    found = results.committees("question", "")
    assert found is not None and found["numbers"] == [0, 1]
    assert found["trials"] == [0.75, 0.75]  # -2 + 1 + 3 is above 0 and -2 - 2 + 3 below
    assert found["twins"] == {"a": 0.0, "b": 0.75, "c": 1.0}
    sizes = {one["size"]: one for one in found["sizes"]}
    assert set(sizes) == {1, 2, 3, 4, 5, 6} and sizes[6]["sd"] == 0
    assert sizes[1]["mean"] == pytest.approx((0 + 0.75 + 1) / 3, abs=0.1)  # of 200 draws


def test_subsets_are_chosen_on_validation_texts_and_measured_on_test_texts(results: Results):
    found = results.committees("question", "")
    assert found is not None
    subsets = found["subsets"]
    by_members = {tuple(one["members"]): one for one in subsets["all"]}
    assert len(by_members) == 7 and subsets["validation_texts"] == 4
    assert by_members[0,]["validation"] == 0.75 and by_members[0,]["test"] == 0.0
    assert by_members[1,]["validation"] == (1 + 0.75) / 2 and by_members[1,]["test"] == 0.75
    assert by_members[2,]["validation"] == 0.5 and by_members[2,]["test"] == 1.0
    # As good on the validation texts: the smaller of both is chosen, and not c, the best on test texts.
    assert by_members[0, 1]["validation"] == by_members[1,]["validation"]
    assert subsets["chosen"] == [1] and subsets["chosen_test"] == [0.75, 0.75]
    assert subsets["chosen_by_trial"] == [[1], [2]] and subsets["chosen_by_trial_test"] == [0.75, 1.0]


def test_the_report_tells_size_and_subset(results: Results):
    (question,) = open_questions(load_results(results))
    section = question.section
    text = markdown(Document("", "", [section]), "plots")
    assert "Mean of random committees out of all 6 stored members" in text
    assert "a 0.000, b 0.750, c 1.000; of 3 different architectures" in text
    assert "Best on 4 validation texts (mean of the trials): b." in text
    answer = question.finding.answer
    assert "with one member, 0.750 with 6; " in answer and "Choosing members on validation texts is" in answer
    # Named for its table: the same question is put to members with and without pre-training.
    assert [block.name for block in section.blocks if hasattr(block, "figure")] == ["question"]


def test_trials_count_that_every_member_has_and_logits_must_be_there(tmp_path: Path):
    figures = MEMBERS | {"c": member([(SURE, WRONG)])}
    rows = [row(name, role="member") for name in figures]
    results = store(tmp_path, "t", {"panels": [panel(rows)]}, {"": figures})
    plan = results.plan("t")
    assert plan is not None
    plan["panels"][0]["rows"][2]["trials"].append("0" * 16)  # of a run that was stopped
    results.write_plan("t", plan)
    store_committees(results)
    found = results.committees("t", "")
    assert found is not None and found["numbers"] == [0]
    for path in (tmp_path / "logits").iterdir():  # a fresh clone keeps what was counted
        path.unlink()
    plan["panels"][0]["rows"][2]["trials"].pop()
    assert store_committees(results) == [] and results.committees("t", "") == found


@pytest.mark.parametrize("steps", [(1,), (2,), (1, 2)])
def test_a_later_trial_counts_beside_one_whose_logits_are_elsewhere(tmp_path: Path, steps: Sequence[int]):
    first = {name: MadeUp(made.accuracy[:1], logits=made.logits[:1]) for name, made in MEMBERS.items()}
    rows = [row(name, role="member") for name in MEMBERS]
    before = store(tmp_path, "t", {"panels": [panel(rows)]}, {"": first})
    store_committees(before)
    found = counted = before.committees("t", "")
    assert found is not None and counted is not None and counted["trials"] == [0.75]
    gone = set((tmp_path / "logits").iterdir())
    half = logits(1, 1, -1, -1)
    for more in steps:
        figures = {
            name: MadeUp(
                [*made.accuracy, *[0.5] * more],
                logits=[*made.logits, *[made.logits[0] | {"test": half}] * more],
            )
            for name, made in first.items()
        }
        spec = {"analysis": "committee-size", "panels": [panel(rows)]}
        results = store(tmp_path, "t", spec, {"": figures})
        results.write_committees("t", "", found)
        for path in gone:
            path.unlink()
        store_committees(results)
        found = results.committees("t", "")
        assert found is not None
        assert found["numbers"] == list(range(1 + more)) and found["trials"] == [0.75, *[0.5] * more]
        # What several trials say together rests on as many as are here, or as were.
        assert found["twins"] == (counted["twins"] if more == 1 else {"a": 0.5, "b": 0.5, "c": 0.5})
        assert found["counted"] == ([0] if more == 1 else [1, 2])
        (question,) = open_questions(load_results(results))
        assert "Best on 4 validation texts" in markdown(Document("", "", [question.section]), "plots")


def test_members_without_a_common_trial_are_no_committee(tmp_path: Path):
    rows = [row(name, role="member") for name in "ab"]
    store(tmp_path, "t", {"panels": [panel(rows)]}, {"": {"a": MadeUp([]), "b": MadeUp([])}})
    assert store_committees(Results(tmp_path)) == ["t: no committee yet, no trial has all its members."]
