"""An encoder is fine-tuned on the training part, and at the end on all labelled texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.fitting import Watched, labelled, recipe, tiny, watch_finetunings
from tinylm.fit import budget
from tinylm.fit.budget import PATIENCE
from tinylm.fit.early_stopping import score_and_loss
from tinylm.model.logits import logits_of

TEXTS, LABELS = labelled(80)


@pytest.fixture
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    return watch_finetunings(monkeypatch)


def test_the_last_finetuning_learns_all_texts_and_the_first_one_measures(
    trainings: list[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "LEAST_CHOOSING", 10)
    classifier = tiny(members=1, tfidf_member=False, validation=0.2, recipe=recipe(2, 12))
    fitted = classifier.fit_for_report(TEXTS, LABELS, compare=True).fitted_
    assert [len(one.task.train) for one in trainings] == [64, 80, 64, 80]
    assert [one.patience for one in trainings] == [PATIENCE, PATIENCE, None, PATIENCE]
    rival, again, measured, last = trainings
    assert rival.found and measured.found and last.found
    # The rival's validation texts choose its epochs, the other takes all it has.
    assert again.recipe.finetune.epochs == rival.found.log.kept
    assert last.recipe.finetune.epochs == 12 == measured.found.log.kept
    accuracy, _ = score_and_loss(
        logits_of(measured.found.model, measured.task.test), measured.task.test_labels
    )
    assert fitted.validation.accuracy == pytest.approx(accuracy)
    assert [history.labelled_used for history in fitted.histories] == [80]
    # The committee has the last one, whatever its weight in the sum.
    (ours,) = fitted.committee.member_logits(TEXTS)
    theirs = logits_of(last.found.model, classifier.fitted_.committee.members[0].tokenizer.encode(TEXTS, 24))
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9999


def test_a_student_never_learns_the_validation_texts(trainings: list[Watched]) -> None:
    fitted = tiny(members=1, student=True, validation=0.2, recipe=recipe(1, 2)).fit(TEXTS, LABELS).fitted_
    assert [history.labelled_used for history in fitted.histories] == [64]
    assert len(trainings[0].task.train) == 64
    assert 80 not in {len(one.task.train) for one in trainings}
