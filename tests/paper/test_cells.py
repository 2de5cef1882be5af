"""Keys of cells: what was stored must be found again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinylm.errors import UserError
from tinylm.model.heads import SequenceClassifier
from tinylm.paper.cells import Planner, RowPlan, parameters_of, seed_of
from tinylm.paper.preset import MOST_TRIALS, Preset, load_preset
from tinylm.paper.results import Results
from tinylm.paper.spec import Architecture, Selection, Table, TaskSpec, load_table
from tinylm.text.store import TokenIds

STORED = Results(Path(__file__).parents[2] / "results" / "paper" / "cpu")
# Some cells of results/paper/cpu by table, panel, row, kind and number.
KEYS = {
    ("table5", "", "all", "pretrainings", 0): "4dea50c026b291b3",
    ("table5", "", "40000", "trials", 1): "500a6caa17250a68",
    ("table5", "", "40000", "without", 0): "029a96af7fb17c3b",
    ("table9", "", "plain-1", "trials", 0): "029a96af7fb17c3b",  # the same cell
    ("table9", "", "plain-2", "trials", 0): "5a01760f8cbd0051",  # its copy, with seeds of its own
    ("table8", "a", "conv2-16x3", "trials", 0): "5782b9ae6d716276",
    ("table8", "b", "bert6", "pretrainings", 1): "ed67ec0e172f7b05",
}
BASELINES = {"tfidf": "0e25464c0836907d", "fasttext": "370317f594076a56"}


class StoredTokenizer:
    """As long as the preset's, and with the fingerprint that stored cells name."""

    def __init__(self, size: int, fingerprint: str) -> None:
        self.size, self.fingerprint = size, fingerprint

    def __len__(self) -> int:
        return self.size


class StoredMaterials:
    """The preset's data sets as far as identities of stored cells tell of them: needs no data."""

    def __init__(self) -> None:
        self.finetuning: dict[str, dict[str, Any]] = {}  # an identity, by task
        for name in STORED.planned():
            plan = stored_plan(name)
            for panel, spec in zip(plan["panels"], plan["spec"]["panels"], strict=True):
                for row in panel["rows"]:
                    task = TaskSpec.model_validate(spec["task"]).model_dump_json()
                    self.finetuning[task] = stored_cell(row["trials"][0])
                    for key in row["pretrainings"]:
                        corpus = stored_cell(key)["corpus"]
        names = ("fingerprint", "tokenizer", "max_tokens", "excluded")
        meta = dict(zip(names, corpus, strict=True))
        self.tokenizer = StoredTokenizer(4000, meta["tokenizer"])
        self.corpus = SimpleNamespace(meta=meta, paragraphs=texts(1))

    def of(self, spec: TaskSpec) -> Any:
        identity = self.finetuning[spec.model_dump_json()]
        task = {
            "name": spec.name,
            "label_names": ["a", "b"],
            "train_texts": [],
            "test_texts": [],
            "notes": [],
        }
        return SimpleNamespace(
            task=SimpleNamespace(fingerprint=identity["task"], **task),
            encoded=SimpleNamespace(train=texts(1), test=texts(1), n_labels=10),
            validation=texts(identity["validation"]),
            tokens=texts(1),
            in_task=np.ones(1, bool),
            tokens_fingerprint=identity["tokens"],
        )

    def coverage(self, selection: Selection, size: int | None, spec: TaskSpec) -> None:
        return None

    def paragraphs(self, selection: Selection, size: int | None, spec: TaskSpec) -> TokenIds:
        assert size is not None
        return TokenIds(np.zeros(size, np.uint16), np.arange(size + 1))


def texts(count: int) -> TokenIds:
    return TokenIds.from_lists([[2, 3]] * count)


def stored_plan(table: str) -> dict[str, Any]:
    plan = STORED.plan(table)
    assert plan is not None
    return plan


def stored_cell(key: str) -> dict[str, Any]:
    cell = STORED.read(key)
    assert cell is not None
    identity: dict[str, Any] = cell["identity"]
    return identity


@pytest.fixture(scope="module")
def planned() -> dict[str, dict[str, Any]]:
    """Today's plans of all tables, as they are stored."""
    preset = load_preset("cpu")
    planner = Planner(preset, StoredMaterials(), preset.trials)  # type: ignore[arg-type]
    return {name: planner.table(*load_table(name)).as_json("cpu", preset) for name in STORED.planned()}


def test_the_keys_of_stored_cells_stay(planned):
    for (table, panel, row, kind, number), key in KEYS.items():
        (cells,) = [
            found[kind]
            for each in planned[table]["panels"]
            for found in each["rows"]
            if (each["name"], found["name"]) == (panel, row)
        ]
        assert cells[number] == key, (table, panel, row)
    found = planned["table5"]["panels"][0]["baselines"]
    assert {method: found[method] for method in BASELINES} == BASELINES


def test_every_stored_table_finds_its_cells(planned):
    kinds = ("trials", "without", "pretrainings")
    for name, plan in planned.items():
        for panel, stored in zip(plan["panels"], stored_plan(name)["panels"], strict=True):
            assert stored["baselines"].items() <= panel["baselines"].items()
            for row, other in zip(panel["rows"], stored["rows"], strict=True):
                assert [row[kind] for kind in kinds] == [other[kind] for kind in kinds], (name, row["name"])


def test_no_two_trainings_of_a_panel_share_a_seed():
    seeds = [seed_of(copy, number) for copy in range(5) for number in range(MOST_TRIALS)]
    assert len(set(seeds)) == len(seeds)


def test_trials_begin_from_the_pretrainings_in_turn():
    preset = load_preset("cpu").model_copy(update={"pretrainings": 2})
    plan = Planner(preset, StoredMaterials(), 5).table(*load_table("table5"))  # type: ignore[arg-type]
    row = plan.panels[0].rows[0]
    assert [cell.start.number for cell in row.trials] == [0, 1, 0, 1, 0]  # type: ignore[union-attr]
    assert [cell.trial for cell in row.trials] == [0, 1, 2, 3, 4]
    assert len(row.pretrainings) == 2 and [cell.start for cell in row.without] == [None] * 5


def test_a_panel_may_have_fewer_trials_than_the_preset():
    panel = load_table("table5")[1].panels[0].model_copy(update={"trials": 2})
    table = Table(title="t", panels=[panel])
    plan = Planner(load_preset("cpu"), StoredMaterials(), 5).table("t", table)  # type: ignore[arg-type]
    row = plan.panels[0].rows[0]
    assert (len(row.trials), len(row.without), len(row.pretrainings)) == (2, 2, 2)


def test_rows_whose_w_s_cannot_be_chosen_are_left_empty_with_a_reason(monkeypatch):
    def refuse(selection: Selection, size: int | None, spec: TaskSpec) -> TokenIds:
        raise UserError("T_M 8661 is out of reach.")

    materials = StoredMaterials()
    monkeypatch.setattr(materials, "paragraphs", refuse)
    plan = Planner(load_preset("cpu"), materials, 2).table(*load_table("table5"))  # type: ignore[arg-type]
    by_name = {row.row.name: row for row in plan.panels[0].rows}
    assert by_name["40000"].note == "T_M 8661 is out of reach." and by_name["40000"].trials == []
    assert by_name["0"].note == "" and len(by_name["0"].trials) == 2  # needs no W_S


def deep_rows(preset: Preset, panel: str) -> dict[str, RowPlan]:
    """Rows of deep-model with the data of table8 and table9, which it shares."""
    plan = Planner(preset, StoredMaterials(), 2).table(*load_table("deep-model"))  # type: ignore[arg-type]
    (found,) = [each for each in plan.panels if each.panel.name == panel]
    return {row.row.name: row for row in found.rows}


def test_equal_seconds_are_those_of_the_rows_together():
    rows = deep_rows(load_preset("cpu").model_copy(update={"deep_layers": 2}), "a")
    members = [row for row in rows.values() if row.row.role == "member"]
    steps, seconds = rows["equal-steps"], rows["equal-seconds"]
    for work_of in (lambda row: row.pretrainings[0].work, lambda row: row.trials[0].work):
        together = sum(map(work_of, members))
        assert together <= work_of(seconds) < together + work_of(steps)  # whole epochs, rounded up
        assert work_of(steps) < together
    assert seconds.config == steps.config and seconds.trials[0].seed == steps.trials[0].seed


def test_who_takes_longer_anyway_is_not_cut_short():
    large = {"w_s": {"select": "random", "size": 40000}, "architecture": {"layers": 6, "keep_layers": True}}
    rows = [
        {"name": "small", "w_s": {"select": "random", "size": 40000}, "architecture": {"layers": 1}},
        {"name": "large", **large},
        {"name": "equal", **large, "equal_seconds": ["small"]},
    ]
    panel = load_table("table5")[1].panels[0].model_dump() | {"rows": rows}
    table = Table.model_validate({"title": "t", "panels": [panel]})
    plan = Planner(load_preset("cpu"), StoredMaterials(), 2).table("t", table)  # type: ignore[arg-type]
    _, large_plan, equal = plan.panels[0].rows
    assert [cell.key for cell in equal.trials] == [cell.key for cell in large_plan.trials]


def test_equal_parameters_are_those_of_the_rows_together():
    rows = deep_rows(load_preset("cpu"), "a")
    together = sum(parameters_of(row.config, 10) for row in rows.values() if row.row.role == "member")
    config = rows["equal-parameters"].config
    found = {
        heads: abs(parameters_of(config.model_copy(update={"heads": heads}), 10) - together)
        for heads in range(1, 60)
    }
    assert config.heads == min(found, key=lambda heads: found[heads])
    assert config.layers == rows["equal-steps"].config.layers


def test_parameters_are_counted_as_they_are():
    config = load_preset("cpu").model_config_of(Architecture(layers=1), 4000, role="row")
    model = SequenceClassifier(config, 10)
    assert parameters_of(config, 10) == sum(weight.numel() for weight in model.parameters())
