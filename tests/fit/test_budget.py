"""A fit keeps its time and uses it, on a clock that the tests turn."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.fitting import FakeClock, labelled_texts, recipe, settings, watch_finetunings
from tinylm.fit import budget, early_stopping, member
from tinylm.fit.encode import split_labelled
from tinylm.fit.pipeline import Fitted, fit_committee
from tinylm.fit.settings import LabelledTexts
from tinylm.model.heads import MaskedLanguageModel
from tinylm.system.paths import cache_folder
from tinylm.system.units import seconds_of
from tinylm.train.loop import Run
from tinylm.train.recipes import RECIPES, Recipe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    lines = [f"text number {i} of the sea" for i in range(2000)]
    (tmp_path / "sea.txt").write_text("\n".join(lines))


def fit(
    clock: FakeClock,
    seconds: float,
    *,
    texts: int = 320,
    members: int = 3,
    compare: bool = False,
    student: bool = False,
    validation: float = 0.1,
    used: Recipe | None = None,
) -> Fitted:
    """Fit encoders one after the other on a clock; only training steps take time."""
    corpus = str(cache_folder().parent / "sea.txt")
    given = settings(
        corpus=corpus, recipe=used or recipe(), members=members, seconds=seconds, validation=validation,
        compare=compare, student=student, clock=clock,
    )  # fmt: skip
    return fit_committee(labelled_texts(texts), given)


def phase_of(run: Run) -> str:
    """What a run does, in a fit of two labels."""
    if isinstance(run.model, MaskedLanguageModel):
        return member.MASKED
    return member.FINETUNING if run.model.n_labels == 2 else member.BAGS


@pytest.mark.parametrize(("compare", "student"), [(False, False), (True, False), (False, True)])
def test_a_fit_uses_its_budget_and_keeps_it(
    compare: bool, student: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    clock.work_takes(monkeypatch, lambda run: 0.05)
    fitted = fit(clock, 120, compare=compare, student=student)
    assert 0.8 * 120 < fitted.seconds <= 120
    for history in fitted.histories:  # and every phase was given a share of it
        assert history.pretraining and history.finetuning.epochs
        assert (history.without is not None) is compare
    assert (fitted.without is not None) is compare


def test_a_machine_that_becomes_slower_ends_a_fit_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    # Ten times as slow as was measured, as soon as it has been measured.
    clock.work_takes(monkeypatch, lambda run: 0.05 if run.state.step < 60 else 0.5)
    fitted = fit(clock, 120)
    assert fitted.seconds <= 120


def test_a_budget_that_is_too_small_gives_a_model_and_says_how_many_texts_it_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    clock.work_takes(monkeypatch, lambda run: 0.5)
    fitted = fit(clock, 12)
    assert min(history.labelled_used for history in fitted.histories) < len(fitted.split.train)


def test_pretraining_gets_the_time_that_finetuning_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds_of_phases(texts: int, used: Recipe) -> tuple[float, float]:
        clock, spent = FakeClock(), Counter[str]()

        def step(run: Run) -> float:
            spent[phase_of(run)] += 0.05
            return 0.05

        with monkeypatch.context() as patch:
            clock.work_takes(patch, step)
            fit(clock, 100, texts=texts, members=1, used=used)
        masked, bags, finetuning = (spent[name] for name in (member.MASKED, member.BAGS, member.FINETUNING))
        assert bags == pytest.approx(masked, rel=0.15)  # both parts of pre-training get half of its time
        return masked + bags, finetuning

    # 150 steps of 0.05 s, and as many epochs over all texts, are 16 s, and no more are needed: pre-training
    # gets all the rest.
    pretraining, finetuning = seconds_of_phases(320, recipe(finetune=5))
    assert 15 <= finetuning < 20 and pretraining > 0.8 * (0.95 * 100 - 20)
    # A recipe that wants more takes more from pre-training, up to its share.
    pretraining, finetuning = seconds_of_phases(3200, recipe(finetune=30))
    assert 0.3 * 100 < finetuning < 0.45 * 100 and 0.45 * 100 < pretraining < 0.6 * 100


def test_a_short_pretraining_is_masked_language_modelling_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def phases(seconds: float) -> set[str]:
        clock = FakeClock()
        with monkeypatch.context() as patch:
            clock.work_takes(patch, lambda run: 0.05)
            fit(clock, seconds, members=1)
        return {phase_of(run) for run in clock.steps}

    # Of 95 % of the time, fine-tuning takes 16 s (see above) and pre-training the rest: 35 and 60 s.
    assert phases(54) == {member.MASKED, member.FINETUNING}
    assert phases(80) == {member.MASKED, member.BAGS, member.FINETUNING}


# 17 epochs of 9 steps, 150 steps at least, take 7.7 s and are planned for 8.5 s; a comparison has 0.3 of the
# time for those of an arm. Three quarters of them are enough, 6.4 s.
@pytest.mark.parametrize(
    ("seconds", "parts", "consistency"), [(400, 2, 4.0), (40, 1, 4.0), (26, 1, 4.0), (20, 1, 0.0)]
)
def test_both_arms_of_a_comparison_learn_all_texts_or_neither_and_have_r_drop_or_neither(
    seconds: float, parts: int, consistency: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seen = FakeClock(), watch_finetunings(monkeypatch)
    clock.work_takes(monkeypatch, lambda run: 0.05)
    fit(clock, seconds, members=1, compare=True)
    assert {one.recipe.finetune.consistency for one in seen} == {consistency}
    phases = [[phase, member.last_of(phase)][:parts] for phase in (member.WITHOUT, member.FINETUNING)]
    assert [one.label for one in seen] == [f"member 1: {name}" for phase in phases for name in phase]


def test_without_validation_texts_no_time_is_kept_to_learn_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def finetuning_steps(validation: float) -> int:
        clock = FakeClock()
        with monkeypatch.context() as patch:
            clock.work_takes(patch, lambda run: 0.05)
            fitted = fit(clock, 100, members=1, validation=validation)
        assert fitted.seconds > 80  # pre-training has the rest
        return sum(phase_of(run) == member.FINETUNING for run in clock.steps)

    # 10 batches of 32 need 15 epochs for 150 steps; 9 batches need 17, and as many over all texts follow.
    assert 150 <= finetuning_steps(0.0) < 150 + 60 < 17 * (9 + 10) <= finetuning_steps(0.1)


def test_a_short_fit_validates_on_fewer_texts() -> None:
    texts, targets = [f"text number {number}" for number in range(10_000)], np.arange(10_000) % 2
    parts = [
        split_labelled(LabelledTexts(texts, targets, ["even", "odd"]), settings(seconds=seconds))
        for seconds in (None, 3600, 10)
    ]
    assert [len(part.validation) for part in parts] == [1000, 1000, 300]
    assert all(len(part.train) + len(part.validation) == 10_000 for part in parts)


@pytest.mark.parametrize(
    ("texts", "recipe_epochs", "epochs"),
    [
        (4000, 10, 10),  # 125 steps an epoch: the recipe's epochs are enough
        (320, 10, 15),  # 10 steps an epoch: 15 epochs make 150 steps
        (160, 10, 30),
        (32, 10, 60),  # never more
        (32, 80, 80),  # but those of the recipe
        (4000, 50, 50),  # the paper's
        (4000, 3, 3),
    ],
)
def test_finetuning_takes_the_recipes_epochs_and_more_of_few_texts(
    texts: int, recipe_epochs: int, epochs: int
) -> None:
    assert budget.enough_epochs(recipe_epochs, texts, batch_size=32) == epochs


@pytest.mark.parametrize(
    ("enough", "n_validation", "epochs", "patience"),
    [
        (4, 400, 30, 6),
        (50, 400, 50, 6),  # the paper's: never fewer than after pre-training
        (60, 3, 120, None),  # three texts cannot choose the number of epochs
        (11, 50, 22, None),
        (4, 0, 8, None),
    ],
)
def test_a_rival_without_pretraining_has_more_epochs_and_no_choice_by_few_texts(
    enough: int, n_validation: int, epochs: int, patience: int | None
) -> None:
    assert budget.rival_epochs(enough, n_validation) == epochs
    assert budget.rival_patience(n_validation) == patience


def test_a_rival_on_few_texts_takes_its_epochs_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two validation texts prefer its first epoch; it takes twice the 60 that the other has."""
    clock, seen = FakeClock(), watch_finetunings(monkeypatch)
    clock.work_takes(monkeypatch, lambda run: 0.01)
    score = itertools.count(0, -1)
    monkeypatch.setattr(early_stopping, "score_and_loss", lambda *_: (float(next(score)), 1.0))
    (history,) = fit(clock, 600, texts=24, members=1, compare=True, used=recipe(finetune=4)).histories
    assert history.without is not None and history.without.patience is None
    assert (history.without.kept, len(history.finetuning.epochs)) == (120, 60)
    assert [one.recipe.finetune.epochs for one in seen] == [120, 120, 60, 60]  # and on all texts


def test_a_fit_with_the_papers_recipe_is_not_cut_to_the_epochs_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    clock.work_takes(monkeypatch, lambda run: 0.001)
    paper = RECIPES["paper"].model_copy(update={"vocabulary": 300, "max_tokens": 24})
    fitted = fit(clock, 600, texts=1600, used=paper)
    fast = fit(clock, 600, texts=1600, used=recipe(finetune=10))
    assert [len(one.finetuning.epochs) for one in fitted.histories] == [50] * 3
    assert [len(one.finetuning.epochs) for one in fast.histories] == [10] * 3


def test_epochs_are_chosen_by_the_clock() -> None:
    # A clock on which every step takes a second: what a budget is enough for can be counted.
    now = [0.0]

    def step() -> None:
        now[0] += 1

    run = SimpleNamespace(step=step)
    # An epoch is 4 steps of 32 texts.
    assert budget.seconds_per_epoch(run, 100, 32, 44, lambda: now[0]) == 4  # type: ignore[arg-type]
    # Three steps warm up; at most 2 seconds are measured.
    assert now[0] == 3 + 2
    epochs, rows = budget.fit_into(38, 4, 100, 30, 32, seed=0)
    assert (epochs, len(rows)) == (8, 100)  # of 0.9 x 38 seconds
    assert budget.fit_into(1000, 4, 100, 30, 32, seed=0)[0] == 30
    few, rows = budget.fit_into(4, 4, 100, 30, 32, seed=0)
    assert few == 1 and 32 <= len(rows) < 100 and (np.diff(rows) > 0).all()


def test_a_step_that_waits_for_a_compiler_does_not_count() -> None:
    now, steps = [0.0], iter([9, 9, 9, 0.5, 0.1, 0.1, 0.1, 0.1, 0.5, 0.1, 9])

    def step() -> None:
        now[0] += next(steps)

    run = SimpleNamespace(step=step)
    epoch = budget.seconds_per_epoch(run, 320, 32, 30, lambda: now[0])  # type: ignore[arg-type]
    assert epoch == pytest.approx(10 * 0.1)  # 1.5 seconds are measured, and half of them are two steps


@pytest.mark.parametrize(
    ("seconds", "epochs", "rows"),
    [
        (20, 2, 90),  # 1.8 passes of 10 seconds
        (13, 1, 100),  # 1.17: the rest is too small a part of a pass
        (15, 2, 67),  # 1.35
        (5, 1, 45),
        (1000, 30, 100),
        (0, 1, 16),
    ],
)
def test_pretraining_fills_the_time_with_passes_over_as_many_rows_as_fit(
    seconds: float, epochs: int, rows: int
) -> None:
    assert budget.read_into(seconds, 10, 100, 30, 16) == (epochs, rows)
    # Never more than the time is enough for, but for the least rows.
    assert epochs * rows <= max(16, 100 * 0.9 * seconds / 10)


def test_time_is_shared_between_the_jobs_of_a_worker() -> None:
    assert budget.slots(3, 2, 60) == pytest.approx([30, 60, 60])  # the third follows the first
    assert budget.slots(5, 2, 60) == pytest.approx([20, 30, 40, 60, 60])
    assert budget.slots(3, 1, 60) == pytest.approx([20, 40, 60])
    assert budget.slots(2, 4, 60) == pytest.approx([60, 60])
    assert [seconds_of(text) for text in ("90s", "1.5h", "5min", 30)] == [90, 5400, 300, 30]
