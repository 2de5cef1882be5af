"""The search for learning rates and weight decays, on a tiny task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.paper import FINETUNE, panel, row
from tests.helpers.runner import Here

from tinylm.errors import UserError
from tinylm.paper import execute, runner, tuning
from tinylm.paper.data import Materials, TaskData, materials
from tinylm.paper.preset import Preset, load_preset, with_hyperparameters
from tinylm.paper.report import write_report
from tinylm.paper.results import Results
from tinylm.paper.spec import Finetuning, Table
from tinylm.paper.tuned import tuned_table
from tinylm.system.processes import threads
from tinylm.text.tasks import hold_out
from tinylm.train.recipes import RECIPES

GOOD = 3e-3  # the preset's learning rate; the paper's, here, is far too small to learn anything
SPEC = """\
title: tiny
panels:
  - title: topics
    task: {name: vital-topics, labels: [0, 1, 2], train_per_label: 60, test_per_label: 20}
    finetune: {learning_rate: 1e-9, weight_decay: 0.05}
    without: {learning_rate: 1e-9, weight_decay: 0.05}
    architecture: {layers: 1}
    rows:
      - name: random
        w_s: {select: random, size: 6400}
      - name: none
        w_s: {select: none}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory):
    """A folder with a spec, a cache of its own, and a preset that learns the task in a few steps."""
    folder = tmp_path_factory.mktemp("tuning")
    (folder / "tiny.yaml").write_text(SPEC)
    changes = {"max_train_texts": 120, "validation_per_label": 20, "finetune_epochs": 8, "patience": 8}
    values = load_preset("smoke").model_dump() | changes
    preset = Preset.model_validate(values)
    recipe = preset.base_recipe()
    quick = recipe.model_copy(
        update={"finetune": recipe.finetune.model_copy(update={"learning_rate": GOOD, "batch_size": 8})}
    )
    with pytest.MonkeyPatch.context() as patch, threads(1):
        patch.setenv("TINYLM_CACHE", str(folder / "cache"))
        patch.setattr(Preset, "base_recipe", lambda self: quick)
        patch.setattr(runner, "load_preset", lambda name: preset)
        execute._pretrained.cache_clear()
        yield folder


def tune(home: Path, folder: Path, attempts: int, rows: Sequence[str] | None = None) -> list[str]:
    prepared = runner.plan_tables([str(home / "tiny.yaml")], preset_name="smoke", folder=folder, rows=rows)
    return tuning.run_searches(prepared, tuning.searches(prepared, rows), attempts, engine=Here())


def found(folder: Path) -> dict[str, Any]:
    stored = Results(folder).tuning("tiny", "")
    assert stored is not None
    return stored["rows"]


@pytest.fixture(scope="module")
def searched(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results after the two starting points of every row."""
    folder = tmp_path_factory.mktemp("results")
    assert tune(home, folder, 2) == []
    return folder


def test_the_better_of_a_good_and_an_absurd_learning_rate_is_found(searched: Path):
    rows = found(searched)
    assert {name: set(arms) for name, arms in rows.items()} == {
        "random": {"finetune", "without"},
        "none": {"finetune", "without"},
    }
    for arms in rows.values():
        for of in arms.values():
            assert of["found"] == of["preset"] and of["found"]["learning_rate"] == GOOD
            assert of["found"]["accuracy"] > of["paper"]["accuracy"] + 0.1
            assert of["paper"]["learning_rate"] == 1e-9 and of["attempts"] == 2
    # Without pre-training, the search of the one row is that of the other.
    assert rows["random"]["without"] == rows["none"]["finetune"] == rows["none"]["without"]
    assert len(list((searched / "searches").glob("*.log"))) == 2


def test_no_test_row_is_read(home: Path, tmp_path: Path, monkeypatch):
    class Untouchable:
        def __getattribute__(self, name: str) -> Any:
            if name == "__class__":
                return object
            raise AssertionError("a test row was read")

        def __len__(self) -> int:
            raise AssertionError("a test row was read")

    of = Materials.of

    def without_test_rows(self: Materials, spec: Any) -> TaskData:
        data = of(self, spec)
        nothing: Any = Untouchable()
        encoded = replace(data.encoded, test=nothing, test_labels=nothing)
        task = replace(data.task, test_texts=nothing, test_labels=nothing)
        return replace(data, encoded=encoded, task=task)

    folder = tmp_path / "r"
    prepared = runner.plan_tables(
        [str(home / "tiny.yaml")], preset_name="smoke", folder=folder, rows=["none"]
    )
    prepared.store()
    monkeypatch.setattr(Materials, "of", without_test_rows)
    wanted = tuning.searches(prepared, ["none"])[:1]
    outcome = tuning.attempt(wanted[0], prepared.preset.model_dump_json(), folder)
    assert outcome.error == "" and outcome.accuracy > 0


def test_an_interrupted_search_continues_where_it_was(home: Path, tmp_path: Path, monkeypatch):
    tried: list[float] = []
    finetune = tuning.finetune_until_best

    def until(most: int) -> Any:
        def interrupted(*arguments: Any, **options: Any) -> Any:
            if len(tried) == most:
                raise KeyboardInterrupt
            tried.append(arguments[3].finetune.learning_rate)
            return finetune(*arguments, **options)

        return interrupted

    monkeypatch.setattr(tuning, "finetune_until_best", until(99))
    assert tune(home, tmp_path / "whole", 4, ["none"]) == []
    whole, tried[:] = list(tried), []
    monkeypatch.setattr(tuning, "finetune_until_best", until(3))
    with pytest.raises(KeyboardInterrupt):
        tune(home, tmp_path / "r", 4, ["none"])
    monkeypatch.setattr(tuning, "finetune_until_best", until(99))
    assert tune(home, tmp_path / "r", 4, ["none"]) == []
    # The fourth is made once more, the three before are not.
    assert len(whole) == 4 and tried == whole and len(set(whole)) == 4
    assert found(tmp_path / "r") == found(tmp_path / "whole")


def test_attempts_worse_than_the_median_end_early(home: Path, tmp_path: Path, monkeypatch):
    epochs: list[int] = []
    scores = iter([0.5, 0.6, 0.7, 0.8, 0.9, 0.1])  # of each attempt, in all its epochs

    def scored(*arguments: Any, watch: Any, **options: Any) -> Any:
        score, taken = next(scores), []
        for _ in range(5):
            taken.append(score)
            if watch(score):
                break
        epochs.append(len(taken))
        log = type("Log", (), {"scores": taken, "kept": len(taken)})
        return type("Finetuning", (), {"log": log})

    monkeypatch.setattr(tuning, "finetune_until_best", scored)
    assert tune(home, tmp_path, 6, ["none"]) == []
    assert epochs == [5, 5, 5, 5, 5, 2]
    of = found(tmp_path)["none"]["finetune"]
    assert (of["found"]["accuracy"], of["attempts"], of["pruned"]) == (0.9, 6, 1)


def test_a_loss_that_is_no_number_loses(home: Path, tmp_path: Path, monkeypatch):
    def diverges(*arguments: Any, **options: Any) -> Any:
        raise UserError("the loss is not a number after step 3")

    monkeypatch.setattr(tuning, "finetune_until_best", diverges)
    failed = tune(home, tmp_path, 1, ["none"])
    assert failed == ["tiny none, no pre-training: the loss is not a number after step 3"]
    assert found(tmp_path)["none"]["finetune"]["found"]["accuracy"] == 0


def test_tables_run_with_what_was_found_as_cells_of_their_own(home: Path, searched: Path):
    def keys(tuned: bool) -> set[str]:
        prepared = runner.plan_tables(
            [str(home / "tiny.yaml")], preset_name="smoke", folder=searched, tuned=tuned, rows=["none"]
        )
        cells = [cell for plan in prepared.plans for cell in plan.cells(["none"])]
        if tuned:
            assert [plan.name for plan in prepared.plans] == ["tiny-tuned"]
            runner.run_tables(prepared, engine=Here())
            rates = {cell.recipe.finetune.learning_rate for cell in cells if hasattr(cell, "recipe")}
            assert rates == {GOOD}
        return {cell.key for cell in cells if hasattr(cell, "recipe")}

    record = Results(searched).tuning("tiny", "")
    assert record is not None
    for arms in record["rows"].values():  # something that the preset would not take
        for of in arms.values():
            of["found"]["weight_decay"] = 0.03125
    Results(searched).write_tuning("tiny", "", record)
    assert not keys(True) & keys(False)
    write_report(searched)
    text = (searched / "report.md").read_text()
    assert "tiny-tuned: tiny; hyper-parameters searched here" in text
    assert "| none, no pre-training | 1.0e-09, 0.05: " in text and "| 3.0e-03, 0.031: " in text


def test_a_table_that_was_not_searched_is_not_run_tuned(tmp_path: Path):
    table = Table.model_validate({"title": "t", "panels": [panel([row("a"), row("b")], without=FINETUNE)]})
    results = Results(tmp_path)
    with pytest.raises(UserError, match="search first: tinylm paper tune t"):
        tuned_table("t", table, results)
    values = {"learning_rate": 0.5, "weight_decay": 0.25, "accuracy": 1.0}
    results.write_tuning("t", "", {"rows": {"b": {"finetune": {"found": values}}}})
    name, tuned = tuned_table("t", table, results)
    (only,) = tuned.panels[0].rows  # a row that was not searched is left out
    assert name == "t-tuned" and only.name == "b"
    assert only.finetune == Finetuning(learning_rate=0.5, weight_decay=0.25) and only.without is None


def test_validation_rows_are_the_presets_or_a_share_of_the_training_rows(home: Path):
    prepared = runner.plan_tables([str(home / "tiny.yaml")], preset_name="smoke", folder=home / "no")
    spec = prepared.plans[0].table.panels[0].task
    source = prepared.source
    given = source.validation_task(spec, 0.1)
    assert given.test is source.of(spec).validation and given.train is source.of(spec).encoded.train
    without = prepared.preset.model_copy(update={"validation_per_label": 0, "patience": None})
    none = materials(without.model_dump_json())
    held = none.validation_task(spec, 0.1)
    smaller, texts, labels = hold_out(none.of(spec).task, 120, 0.1)
    assert len(held.test) == len(texts) == 12 and len(held.train) == len(smaller.train_texts) == 108
    np.testing.assert_array_equal(held.test_labels, labels)


def test_muon_keeps_its_ratio():
    tuned = with_hyperparameters(RECIPES["fast"], Finetuning(learning_rate=2e-3, weight_decay=0)).finetune
    assert (tuned.learning_rate, tuned.muon_lr, tuned.weight_decay) == (2e-3, 0.02, 0)
    plain = with_hyperparameters(RECIPES["paper"], Finetuning(learning_rate=2e-3, weight_decay=0)).finetune
    assert plain.muon_lr is None
