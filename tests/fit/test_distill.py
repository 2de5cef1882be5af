"""Students of a committee."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.command import done, refused, tinylm
from helpers.fitting import labelled, recipe, several_labels, tiny
from tinylm import TinyTextClassifier
from tinylm.errors import UserError
from tinylm.fit.distill import distill, taught
from tinylm.fit.member import loss_of
from tinylm.text.store import TokenIds


def test_a_student_follows_its_teacher_and_not_the_truth():
    """The teacher has learnt that farms are seas and seas farms; nobody else says so."""
    texts, labels = labelled(60)
    swapped = ["sea" if label == "farm" else "farm" for label in labels]
    teacher = tiny(members=2).fit(texts, swapped).committee_
    new, truth = labelled(80, seed=1)
    found = distill(teacher, new, recipe(finetune=8), seed=0)
    assert len(found.student.members) == 1
    assert (found.held_out, found.learnt) == (len(set(new)) - found.learnt, len(set(new)) - found.held_out)
    assert found.agreement > 0.8
    again, answers = labelled(60, seed=2)
    assert np.mean(np.array(found.student.predict(again)) == np.array(answers)) < 0.2
    assert np.mean(np.array(teacher.predict(again)) == np.array(found.student.predict(again))) > 0.8


@pytest.mark.parametrize("several", [False, True])
def test_the_student_learns_probabilities_not_decisions(several: bool):
    """Cross-entropy with 0.75 and 0.25, by hand; with several labels for each label on its own."""
    probabilities = np.array([[0.75, 0.25]], np.float32)
    committee = SimpleNamespace(predict_proba=lambda texts: probabilities)
    ids = TokenIds.from_lists([[5, 6]])
    task = taught(committee, ["a text"], ids, ids, np.zeros((1, 2)) if several else np.zeros(1, int))
    logits, targets = torch.tensor([[1.0, -1.0]]), torch.from_numpy(task.train_labels)
    if several:
        yes = 1 / (1 + torch.exp(-logits[0]))
        by_hand = -(targets[0] * torch.log(yes) + (1 - targets[0]) * torch.log(1 - yes)).mean()
    else:
        log = torch.log(torch.exp(logits) / torch.exp(logits).sum())
        by_hand = -(0.75 * log[0, 0] + 0.25 * log[0, 1])
    torch.testing.assert_close(loss_of(task)(logits, targets), by_hand)


def test_too_few_texts():
    texts, labels = labelled(20)
    committee = tiny().fit(texts, labels).committee_
    with pytest.raises(UserError, match="3 different texts; distillation needs at least 10"):
        distill(committee, ["one", "two", "three", "three"], recipe(), seed=0)


def test_fit_leaves_the_student_and_knows_its_teacher(tmp_path: Path):
    texts, labels = labelled(60)
    classifier = tiny(members=2, student=True, validation=0.2).fit(texts, labels)
    assert len(classifier.committee_.members) == 1
    assert len(classifier.fitted_.teacher.members) == 3  # with the TF-IDF member
    assert classifier.facts_["encoders"] == 1
    test, answers = labelled(60, seed=3)
    assert classifier.score(test, answers) > 0.8
    # Not the member that it started from: it has learnt from the others.
    member = classifier.fitted_.teacher.members[0].weights["classifier.weight"].value
    assert not np.allclose(classifier.committee_.members[0].weights["classifier.weight"].value, member)
    classifier.save_pretrained(tmp_path / "model")
    loaded = TinyTextClassifier.from_pretrained(tmp_path / "model")
    assert loaded.student
    np.testing.assert_allclose(loaded.predict_proba(test), classifier.predict_proba(test), atol=1e-6)


def test_a_student_of_a_committee_with_several_labels():
    texts, labels = several_labels(80)
    classifier = tiny(members=1, student=True, recipe=recipe(finetune=15)).fit(texts, labels)
    test, answers = several_labels(60, seed=1)
    assert classifier.multi_label_
    assert classifier.score(test, answers) > 0.5  # of eight sets of labels


def test_the_command_and_what_it_leaves(tmp_path: Path):
    texts, labels = labelled(60)
    tiny(members=2).fit(texts, labels).save_pretrained(tmp_path / "committee")
    more, _ = labelled(60, seed=4)
    (tmp_path / "more.csv").write_text("text\n" + "\n".join(more))
    where = (tmp_path / "committee", tmp_path / "more.csv", "--out", tmp_path / "student")
    out = done("distill --corpus none", *where).out
    assert "held-out texts" in out
    student = TinyTextClassifier.from_pretrained(tmp_path / "student")
    assert (len(student.committee_.members), student.facts_["encoders"]) == (1, 1)
    assert len(student.facts_["taught_by"]) == 3 and student.facts_["validation"] is None
    (tmp_path / "few.csv").write_text("text\none\ntwo\n")
    few = tinylm(
        "distill --corpus none", tmp_path / "committee", tmp_path / "few.csv", "--out", tmp_path / "other"
    )
    assert "2 different texts" in refused(few)
    assert not (tmp_path / "other").exists()
