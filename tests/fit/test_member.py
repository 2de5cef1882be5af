"""An encoder is fine-tuned on the training part, and at the end on all labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.fitting import labelled, recipe, tiny
from tinylm.fit import member
from tinylm.fit.budget import PATIENCE
from tinylm.fit.early_stopping import Finetuning, score_and_loss
from tinylm.model.logits import logits_of
from tinylm.train.finetune import EncodedTask
from tinylm.train.recipes import Recipe

TEXTS, LABELS = labelled(80)


@pytest.fixture
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each fine-tuning of the next fits was given (task, recipe, patience), and what came of it."""
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    seen, work = [], member.finetune_until_best

    def watched(task: EncodedTask, tokenizer: Any, start: Any, used: Recipe, **options: Any) -> Finetuning:
        found = work(task, tokenizer, start, used, **options)
        seen.append((task, used, options.get("patience", PATIENCE), found))
        return found

    monkeypatch.setattr(member, "finetune_until_best", watched)
    return seen


def test_the_last_finetuning_learns_all_texts_and_the_first_one_measures(trainings: Any) -> None:
    classifier = tiny(members=1, tfidf_member=False, validation=0.2, recipe=recipe(2, 12))
    fitted = classifier.fit_for_report(TEXTS, LABELS, compare=True).fitted_
    assert [len(task.train) for task, *_ in trainings] == [64, 80, 64, 80]
    assert [patience for _, _, patience, _ in trainings] == [PATIENCE, PATIENCE, None, PATIENCE]
    (_, _, _, rival), (_, again, _, _), (task, _, _, measured), (_, last, _, kept) = trainings
    # The rival's validation texts choose its epochs, the other takes all it has.
    assert again.finetune.epochs == rival.log.kept and last.finetune.epochs == 12 == measured.log.kept
    accuracy, _ = score_and_loss(logits_of(measured.model, task.test), task.test_labels)
    assert fitted.validation.accuracy == pytest.approx(accuracy)
    assert [history.labelled_used for history in fitted.histories] == [80]
    # The committee has the last one, whatever its weight in the sum.
    (ours,) = fitted.committee.member_logits(TEXTS)
    theirs = logits_of(kept.model, classifier.fitted_.committee.members[0].tokenizer.encode(TEXTS, 24))
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9999


def test_a_student_never_learns_the_validation_texts(trainings: Any) -> None:
    fitted = tiny(members=1, student=True, validation=0.2, recipe=recipe(1, 2)).fit(TEXTS, LABELS).fitted_
    assert [history.labelled_used for history in fitted.histories] == [64]
    assert [len(task.train) for task, *_ in trainings][:1] == [64]
    assert not {len(task.train) for task, *_ in trainings} & {80}
