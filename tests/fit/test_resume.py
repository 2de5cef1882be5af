"""A fit that is interrupted: the same command resumes it, and nothing of it is left when it is done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from helpers.fitting import (
    FakeClock,
    labelled,
    labelled_texts,
    recipe,
    settings,
    tiny,
    watch_finetunings,
)
from tinylm import TinyTextClassifier
from tinylm.errors import MachineWarning, UserError
from tinylm.fit import member, resume
from tinylm.fit.pipeline import fit_committee
from tinylm.fit.resume import under_way
from tinylm.fit.settings import LabelledTexts, Settings
from tinylm.infer.tfidf import TfidfMember
from tinylm.train.checkpoint import Checkpoint
from tinylm.train.loop import Run

TEXTS, LABELS = labelled(80)


class KilledError(Exception):
    """In place of a signal."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Gives the next fit an empty cache, so that only what is unfinished can help it."""
    monkeypatch.setenv("TINYLM_CHECKPOINT_SECONDS", "0")
    numbers = iter(range(100))

    def empty() -> None:
        monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / f"cache-{next(numbers)}"))

    empty()
    return empty


def fit(unfinished: Path | None) -> TinyTextClassifier:
    classifier = tiny(members=2, recipe=recipe(pretrain=2, finetune=2))
    return classifier.fit_for_report(TEXTS, LABELS, compare=True, unfinished=unfinished)


def weights(classifier: TinyTextClassifier) -> list[np.ndarray]:
    members = [*classifier.committee_.members, *classifier.fitted_.without.members]
    encoders = [one for one in members if not isinstance(one, TfidfMember)]
    tables = [one.model.weight for one in members if isinstance(one, TfidfMember)]
    return tables + [weight.data for one in encoders for weight in one.weights.values()]


def dying(work: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """`work` that ends its process, so to speak, after some calls."""
    done: list[None] = []

    def call(*arguments: Any, **options: Any) -> Any:
        if len(done) == calls:
            raise KilledError
        done.append(None)
        return work(*arguments, **options)

    return call


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TinyTextClassifier:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return fit(None)


# Each member is trained without pre-training, pre-trained and fine-tuned; each fine-tuning has a second part.
@pytest.mark.parametrize(
    ("place", "name", "calls"),
    [
        (member, "finetune_until_best", 0),
        (member, "pretrain", 1),
        (member, "predict_bags", 1),
        (Checkpoint, "save", 4),
        (member, "finetune_until_best", 1),
        (member, "finetune_until_best", 7),
    ],
)
def test_an_interrupted_fit_resumes_and_equals_an_undisturbed_one(
    tmp_path: Path,
    cache: Callable[[], None],
    undisturbed: TinyTextClassifier,
    place: Any,
    name: str,
    calls: int,
) -> None:
    folder = tmp_path / "unfinished"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(place, name, dying(getattr(place, name), calls))
        fit(folder)
    cache()
    found = fit(folder)
    for ours, theirs in zip(weights(found), weights(undisturbed), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.fitted_.histories == undisturbed.fitted_.histories


def test_what_is_finished_is_not_trained_again(
    tmp_path: Path, cache: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    for place in ("finetune_until_best", "pretrain"):
        work = getattr(member, place)
        monkeypatch.setattr(
            member, place, lambda *a, work=work, place=place, **b: (trained.append(place), work(*a, **b))[1]
        )
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(member, "finetune_until_best", dying(member.finetune_until_best, 7))
        fit(tmp_path / "unfinished")
    trained.clear()
    cache()
    fit(tmp_path / "unfinished")
    assert trained == ["finetune_until_best"]
    monkeypatch.setattr(Run, "start_step", lambda self: pytest.fail("a step was done"))
    fit(tmp_path / "unfinished")


def test_a_damaged_phase_is_trained_again(tmp_path: Path, cache: Callable[[], None]) -> None:
    fit(tmp_path / "unfinished")
    path = next((tmp_path / "unfinished").glob("*/fine-tuning.safetensors"))
    content, weights = path.read_bytes(), load_file(path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.warns(MachineWarning, match=f"{path} is damaged .*trained again"):
        fit(tmp_path / "unfinished")
    for name, again in load_file(path).items():
        np.testing.assert_array_equal(again, weights[name])


def within_100_seconds(clock: FakeClock, members: int, unfinished: Path) -> tuple[LabelledTexts, Settings]:
    """A fit with both arms that begins now."""
    return labelled_texts(320), settings(
        members=members, seconds=100, compare=True, clock=clock, begun=clock.now, unfinished=unfinished
    )


def test_the_budget_counts_the_time_before_the_interruption(
    tmp_path: Path, cache: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    clock.work_takes(monkeypatch, lambda run: 0.05)
    texts, given = within_100_seconds(clock, 2, tmp_path / "unfinished")
    begin = clock.now
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(member, "finetune_until_best", dying(member.finetune_until_best, 3))
        fit_committee(texts, given)
    assert 40 < clock.now - begin < 95  # the second member was not finished
    before = len(clock.steps)
    fitted = fit_committee(texts, given)
    assert clock.now - begin <= 95.1
    assert 0 < len(clock.steps) - before < before
    assert [bool(history.pretraining) for history in fitted.histories] == [True, True]


def test_an_arm_that_is_resumed_with_little_time_keeps_r_drop_as_the_other_has_it(
    tmp_path: Path, cache: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seen = FakeClock(), watch_finetunings(monkeypatch)
    clock.work_takes(monkeypatch, lambda run: 0.05)
    texts, given = within_100_seconds(clock, 1, tmp_path / "unfinished")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(member, "pretrain", dying(member.pretrain, 0))  # between the two arms
        fit_committee(texts, given)
    fit_committee(texts, replace(given, begun=clock.now - 80))
    arms = [f"member 1: {phase}" for phase in (member.WITHOUT, member.FINETUNING)]
    used = {one.label: one.recipe.finetune.consistency for one in seen}
    assert [used[arm] for arm in arms] == [4.0, 4.0]


# --- the folder of a fit under way ---


def test_time_is_counted_and_nothing_is_left_of_a_fit_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SECONDS", 0.01)
    folder, state = tmp_path / "model.checkpoint", {"seed": 1, "out": Path("model").name}
    with pytest.raises(KilledError), under_way(folder, state) as first:
        assert first is not None and first.seconds == 0
        (folder / "member").mkdir()
        noted = json.loads((folder / "fit.json").read_text())["seconds"]
        while json.loads((folder / "fit.json").read_text())["seconds"] < noted + 0.05:
            time.sleep(0.001)
        raise KilledError
    with pytest.raises(UserError, match=r"other settings \(seed\); give the same settings to resume it"):
        under_way(folder, state | {"seed": 2}).__enter__()
    with under_way(folder, state) as second:
        assert second is not None and second.seconds > 0.05
        with pytest.raises(UserError, match="another process is working on this fit"):
            under_way(folder, state).__enter__()
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_fit_that_trained_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such column"), under_way(tmp_path / "model.checkpoint", {}):
        raise UserError("no such column")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with under_way(tmp_path / "file" / "model.checkpoint", {}) as unfinished:
        assert unfinished is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
