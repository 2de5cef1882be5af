"""Texts without labels: the committee labels them, and its members learn from that."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.fitting import (
    NOUNS,
    FakeClock,
    labelled,
    labelled_texts,
    recipe,
    settings,
    several_labels,
    tiny,
    watch_finetunings,
)
from tinylm.fit import member, teach, tfidf_member
from tinylm.fit.encode import encode, split_labelled
from tinylm.fit.pipeline import fit_committee
from tinylm.fit.tfidf_member import drawn_labels, retrain_tfidf
from tinylm.infer.tfidf import TfidfMember
from tinylm.model.tfidf import TfidfModel
from tinylm.train.tfidf import TfidfTask

TOPICS = ("farm", "sea")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))


KNOWN, OTHERS = slice(0, 5), slice(5, None)  # of the nouns of a topic


def texts_of(count: int, *parts: slice, seed: int) -> tuple[list[str], list[str]]:
    """Two nouns of each part."""
    chance = random.Random(seed)
    topics = [TOPICS[i % 2] for i in range(count)]
    words = ([w for part in parts for w in chance.choices(NOUNS[topic][part], k=2)] for topic in topics)
    return [" ".join(text) for text in words], topics


def test_texts_without_labels_tell_of_words_that_no_labelled_text_has() -> None:
    """They show which words go together. Alone, the linear model knows letters that words share."""
    texts, labels = texts_of(60, KNOWN, seed=0)
    unlabelled, _ = texts_of(400, KNOWN, OTHERS, seed=1)
    test, answers = texts_of(200, OTHERS, seed=2)
    found = []
    for more in (None, unlabelled):
        committee = tiny(unlabelled=more, recipe=recipe(1, 10)).fit(texts, labels).committee_
        (linear,) = (one for one in committee.members if isinstance(one, TfidfMember))
        given = np.array(committee.label_names)[linear.model.logits(test).argmax(1)]
        found.append([np.mean(given == answers), np.mean(np.array(committee.predict(test)) == answers)])
    assert found[0][0] < 0.8 and min(found[1]) > 0.95


@pytest.mark.parametrize("compare", [False, True])
def test_no_member_learns_a_validation_text(monkeypatch: pytest.MonkeyPatch, compare: bool) -> None:
    texts, labels = labelled(60)
    texts = [f"{text} no{number}" for number, text in enumerate(texts)]
    seen = watch_finetunings(monkeypatch)
    linear: list[int] = []
    train = tfidf_member.train_tfidf

    def trained(task: TfidfTask, rows: np.ndarray | None = None) -> TfidfModel:
        linear.append(len(task.targets) if rows is None else len(rows))
        return train(task, rows)

    monkeypatch.setattr(tfidf_member, "train_tfidf", trained)
    unlabelled = [*texts, *(f"the ship {number}" for number in range(40))]
    classifier = tiny(members=1, validation=0.2, unlabelled=unlabelled, recipe=recipe(1, 2))
    fitted = classifier.fit_for_report(texts, labels, compare=compare).fitted_
    # 48 of 60 texts are for training. Of the 100 without labels 12 are copies of validation texts.
    assert fitted.kept_out == 12 and fitted.self_taught == 88
    learned = [(len(one.task.train), len(one.task.test)) for one in seen]
    assert learned == [(48, 12)] * (1 + compare) + [(48 + 88, 12)] * (1 + compare)
    assert linear == [48] + [48 + 88 - 8] * (1 + compare)
    assert [history.labelled_used for history in fitted.histories] == [48]
    assert fitted.validation is not None and (fitted.without is not None) == compare
    assert classifier.facts_["self_taught_texts"] == 88


def test_several_labels() -> None:
    texts, labels = several_labels(80)
    more, _ = several_labels(120, seed=1)
    test, answers = several_labels(60, seed=2)
    classifier = tiny(unlabelled=more).fit(texts, labels)
    assert classifier.fitted_.self_taught == 120
    assert classifier.score(test, answers) > 0.9


def test_few_texts_without_labels_are_only_read() -> None:
    texts, labels = labelled(40)
    fitted = tiny(unlabelled=labelled(30, seed=1)[0], validation=0.2).fit(texts, labels).fitted_
    assert fitted.self_taught == 0 and [history.labelled_used for history in fitted.histories] == [40]


def test_a_student_learns_few_texts_without_labels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch_finetunings(monkeypatch)
    texts, labels = labelled(40)
    more = [f"{text} today" for text in labelled(20, seed=1)[0]]
    fitted = (
        tiny(student=True, unlabelled=more, validation=0.2, recipe=recipe(1, 2)).fit(texts, labels).fitted_
    )
    train = len(fitted.split.train)
    assert [len(one.task.train) for one in seen] == [train, train + 20] and fitted.self_taught == 0
    assert [one.label for one in seen] == ["member 1: fine-tuning", "student: distillation"]


def test_labels_are_drawn_by_their_probabilities() -> None:
    rows = 20_000
    one = drawn_labels(np.tile(np.array([0.2, 0.5, 0.3], np.float32), (rows, 1)), 0, several=False)
    np.testing.assert_allclose(np.bincount(one) / rows, [0.2, 0.5, 0.3], atol=0.015)
    each = drawn_labels(np.tile(np.array([0.2, 0.9], np.float32), (rows, 1)), 0, several=True)
    np.testing.assert_allclose(each.mean(0), [0.2, 0.9], atol=0.015)
    assert set(drawn_labels(np.eye(3, dtype=np.float32), 0, several=False)) == {0, 1, 2}


@pytest.mark.parametrize("sure", [0.6, 0.95])
def test_the_linear_model_is_as_sure_as_the_committee_that_taught_it(sure: float) -> None:
    given = settings(tfidf_member=True, validation=0.25, unlabelled=labelled(600, seed=1)[0])
    task = labelled_texts(40)
    encoded = encode(task, split_labelled(task, given), given)
    first = tfidf_member.fit_tfidf(encoded)
    assert first is not None
    sea = np.array([any(noun in text.split() for noun in NOUNS["sea"]) for text in encoded.unlabelled], int)
    probabilities = np.where(sea[:, None] == np.arange(2), sure, 1 - sure).astype(np.float32)
    found = retrain_tfidf(first, encoded, probabilities, None)
    logits = found.model.logits(labelled(200, seed=2)[0])
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert chances.max(1).mean() == pytest.approx(sure, abs=0.07)
    validation = found.model.logits([task.texts[i] for i in encoded.split.validation])
    np.testing.assert_allclose(found.validation_logits, validation, atol=1e-4)


def test_it_keeps_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    clock.work_takes(monkeypatch, lambda run: 0.05)
    given = settings(members=2, unlabelled=labelled(3000, seed=1)[0], seconds=100, compare=True, clock=clock)
    begin, ends = clock.now, []
    work = teach.train_students

    def watched(*arguments: Any) -> Any:
        ends.append(clock.now - begin)
        return work(*arguments)

    monkeypatch.setattr(teach, "train_students", watched)
    fit_committee(labelled_texts(100), given)
    assert 55 < ends[0] <= 65.1 and 70 < ends[1] <= 80.1  # after both arms, and after the first one's
    assert 85 < clock.now - begin <= 95.1


def test_an_interrupted_one_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = labelled(60)
    more, _ = labelled(90, seed=1)

    def fit(unfinished: Path | None) -> list[np.ndarray]:
        classifier = tiny(members=2, unlabelled=more, recipe=recipe(1, 2))
        classifier.fit_for_report(texts, labels, compare=True, unfinished=unfinished)
        arms = classifier.committee_, classifier.fitted_.without
        encoders = [one for arm in arms for one in arm.members if not isinstance(one, TfidfMember)]
        return [weight.data for one in encoders for weight in one.weights.values()]

    whole = fit(None)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        first = watch_finetunings(patch, dies_at=8)
        fit(tmp_path / "unfinished")
    assert len({one.label for one in first if member.SELF_TRAINING in one.label}) == 4
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "another"))
    again = watch_finetunings(monkeypatch)
    for ours, theirs in zip(fit(tmp_path / "unfinished"), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(again) == 1
