"""Specs: those of the paper say what the paper says; a bad one is refused with its line."""

from __future__ import annotations

import pytest

from tinylm.errors import UserError
from tinylm.paper.preset import Preset, load_preset, preset_names
from tinylm.paper.runner import _expanded
from tinylm.paper.spec import Architecture, Finetuning, Selection, load_table, parse, parse_table, table_names
from tinylm.train.recipes import RECIPES

GOOD = """\
title: mine
panels:
  - title: a task
    task: {name: fewrel, train_per_label: 5, test_per_label: 5}
    finetune: {learning_rate: 1e-4, weight_decay: 1e-2}
    rows:
      - name: one
        w_s: {select: random, size: 10}
      - name: two
        w_s: {select: none}
"""


def rows_of(name: str, panel: str = "") -> dict[str, object]:
    _, table = load_table(name)
    (found,) = [each for each in table.panels if each.name == panel]
    return {row.name: row for row in found.rows}


def test_every_table_of_the_paper_and_every_open_question_has_a_spec():
    names = table_names()
    assert names[:10] == ["figure1", *(f"table{n}" for n in range(1, 10))]
    assert set(names[10:]) == {
        "committee-size",
        "committee-untrained",
        "deep-model",
        "depth",
        "gap-curve",
        "overlap-control",
        "overlap-selections",
        "reduced-vocabulary",
        "reverse-mismatch",
        "reverse-shares",
        "single-head",
        "weighted-overlap",
    }
    for name in names:
        load_table(name)


@pytest.mark.parametrize(
    ("table", "panel", "row", "paper"),
    [
        ("table1", "second", "second", {"w_s": 20589, "t_m": 6492, "accuracy": 0.795, "gap": 0.069}),
        ("table2", "30", "30", {"w_s": 105101, "t_m": 562, "accuracy": 0.476, "gap": 0.123}),
        ("table4", "b", "mismatched", {"w_s": 40000, "t_w": 9658, "t_m": 16301, "accuracy": 0.578}),
        ("table5", "", "2000", {"w_s": 2000, "t_w": 16871, "t_m": 5473, "accuracy": 0.854, "gap": 0.014}),
        ("table6", "", "90000", {"w_s": 90000, "t_w": 28302, "gap": 0.047}),
        ("table7", "", "mismatched", {"w_s": 20000, "t_w": 12006, "t_m": 10250, "accuracy": 0.948}),
        ("table8", "a", "conv2-16x3", {"w_s": 37936, "accuracy": 0.836}),
        ("table3", "c", "200000", {"w_s": 200000}),  # lost in the text: left empty, not guessed
    ],
)
def test_values_are_those_of_the_paper(table, panel, row, paper):
    assert rows_of(table, panel)[row].paper.model_dump(exclude_none=True) == paper


def test_specs_name_the_claims_that_they_are_held_against():
    claims = {}
    for name in table_names():
        for panel in load_table(name)[1].panels:
            for claim in panel.claims:
                claims.setdefault(claim, []).append(name)
    assert {claim: sorted(set(names)) for claim, names in claims.items()} == {
        "gap": ["table1", "table2", "table3", "table5", "table6"],
        "growth": ["table3", "table5", "table6"],
        "overlap": ["overlap-control", "table4", "table7"],
        "committee": ["deep-model", "table8"],
        "untrained-committee": ["deep-model", "table9"],
    }


def test_hyperparameters_are_those_of_tables_10_to_12():
    # Table 10, W_S = 20,000; Table 11, the same; Table 12, W_S = 2,000.
    expected = {("table3", "a", "20000"): (7e-5, 1.5e-2), ("table3", "c", "20000"): (5e-5, 1e-3)}
    expected[("table5", "", "2000")] = (2e-4, 8e-2)
    for (table, panel, row), (rate, decay) in expected.items():
        assert rows_of(table, panel)[row].finetune == Finetuning(learning_rate=rate, weight_decay=decay)


def test_table_1_has_the_label_sets_of_its_caption():
    _, table = load_table("table1")
    assert [panel.task.labels for panel in table.panels] == [
        [5, 10, 11, 16, 17, 25, 27, 33, 36, 39],
        [8, 13, 18, 23, 26, 30, 42, 49, 50, 56],
        [0, 2, 5, 10, 11, 16, 17, 36, 45, 63],
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("size: 10", "size: ten", 8, "valid integer"),
        ("name: fewrel", "name: fewrl", 4, "expected fewrel, agnews"),
        ("name: two", "name: one", 3, "more than once"),
        ("select: none", "select: nothing", 10, "'random'"),
        ("learning_rate: 1e-4", "learning_rate: -1", 5, "greater than 0"),
        ("        w_s: {select: none}", "        w_s: {select: none}\n        colour: red", 11, "colour"),
        ("select: random, size: 10", "select: random", 8, "needs a size"),
        ("select: random, size: 10", "select: same-lengths", 8, "says whose lengths"),
        ("select: random, size: 10", "select: same-lengths, lengths_of: mismatched", 8, "needs a size"),
        ("title: a task", "title: [a, task", 4, "not valid YAML"),
    ],
)
def test_a_bad_spec_is_refused_with_file_line_and_reason(old, new, line, words):
    with pytest.raises(UserError) as error:
        parse_table(GOOD.replace(old, new), "mine.yaml")
    assert str(error.value).startswith(f"mine.yaml, line {line}")
    assert words in str(error.value)


def test_a_table_of_ones_own_is_named_by_its_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    name, table = load_table(str(path))
    assert name == "mine" and [row.name for row in table.panels[0].rows] == ["one", "two"]


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(
        UserError, match="'table10' is unknown; there are figure1, table1, .*weighted-overlap"
    ):
        load_table("table10")
    with pytest.raises(UserError, match="'huge' is unknown; there are smoke, cpu, laptop, gpu, paper"):
        load_preset("huge")
    with pytest.raises(UserError, match="nowhere.yaml does not exist"):
        load_table(str(tmp_path / "nowhere.yaml"))
    (tmp_path / "table5.yaml").write_text(GOOD)
    with pytest.raises(UserError, match="name of a table of the paper"):
        load_table(str(tmp_path / "table5.yaml"))


def test_the_paper_preset_changes_nothing():
    paper = load_preset("paper")
    config = paper.model_config_of(Architecture(), 30522, role="row")
    assert (config.layers, config.width, config.max_tokens, config.dropout) == (6, 768, 128, 0.1)
    assert paper.size_of(Selection(select="random", size=90000), 90000) == 90000
    assert paper.size_of(Selection(select="custom-made"), 37936) is None  # whatever qualifies
    assert paper.rows_per_label(630, 0, 70, 10) == (630, 0, 70)
    assert paper.rows_per_label(630, 63, 70, 10) == (567, 63, 70)
    recipe = paper.finetuning_recipe(Finetuning(learning_rate=7e-5, weight_decay=1.5e-2), 6300)
    assert (recipe.finetune.learning_rate, recipe.finetune.weight_decay) == (7e-5, 1.5e-2)
    pretrain = paper.pretraining_recipe(2000).pretrain
    assert (pretrain.epochs, pretrain.batch_size, pretrain.learning_rate) == (50, 32, 5.5e-5)
    assert paper.trials >= 5 and paper.pretrainings >= 2


def test_the_gpu_preset_is_the_papers_on_other_text():
    gpu, paper = load_preset("gpu"), load_preset("paper")
    other = {knob for knob, value in paper if getattr(gpu, knob) != value}
    assert other == {"corpus", "all_of_wikipedia"}
    assert gpu.corpus == load_preset("laptop").corpus
    assert gpu.size_of(Selection(select="all"), 6_000_000) is None  # the whole corpus


def test_the_laptop_preset_keeps_the_scale_of_the_text():
    laptop, paper = load_preset("laptop"), load_preset("paper")
    kept = ("vocabulary", "max_tokens", "w_s_divided_by", "paper_t_m", "max_train_texts", "max_test_texts")
    assert [getattr(laptop, knob) for knob in kept] == [getattr(paper, knob) for knob in kept]
    assert laptop.pretrainings == laptop.trials == 5  # a fine-tuning of each
    assert laptop.size_of(Selection(select="all"), 6_000_000) is None  # the whole corpus
    assert laptop.size_of(Selection(select="random", size=200_000), 200_000) == 200_000
    assert laptop.rows_per_label(630, 0, 70, 64) == (630, 0, 70)
    assert laptop.model_config_of(Architecture(), 30522, role="deep").layers == 6


def test_a_large_task_takes_fewer_epochs():
    preset = load_preset("laptop").model_copy(update={"finetune_epochs": 20, "most_finetune_texts": 1000})
    hyper = Finetuning(learning_rate=1e-4, weight_decay=0)
    epochs = [preset.finetuning_recipe(hyper, texts).finetune.epochs for texts in (10, 100, 400, 5000)]
    assert epochs == [20, 10, 2, 2]


def test_patience_needs_validation_texts():
    with pytest.raises(UserError, match="patience needs validation texts"):
        parse(Preset, "{recipe: fast, vocabulary: 300, corpus: vital, patience: 3}", "presets.yaml")


def test_the_deep_model_of_a_committee_has_its_own_depth():
    preset = load_preset("paper").model_copy(update={"layers": 1, "deep_layers": 2})
    deep, shallow = Architecture(), Architecture(layers=1)
    assert [preset.model_config_of(deep, 999, role=role).layers for role in ("row", "deep")] == [1, 2]
    assert preset.model_config_of(shallow, 999, role="member").layers == 1
    assert load_preset("paper").model_config_of(deep, 999, role="deep").layers == 6


def test_the_deep_model_is_that_of_tables_8_and_9_beside_their_members():
    for panel, (table, of_table) in {"a": ("table8", "a"), "b": ("table8", "b"), "c": ("table9", "")}.items():
        deep, printed = rows_of("deep-model", panel), rows_of(table, of_table)
        for name, row in printed.items():
            if row.role == "member":
                assert deep[name] == row
        assert deep["equal-steps"].model_dump(exclude={"name"}) == printed["bert6"].model_dump(
            exclude={"name"}
        )


def test_a_row_equals_rows_above_it_alone():
    spec = GOOD.replace("w_s: {select: none}", "w_s: {select: none}\n        equal_seconds: [three]")
    with pytest.raises(UserError, match="'two' is to equal 'three', which is no row above it"):
        parse_table(spec, "mine.yaml")


def test_a_model_may_keep_its_blocks_whatever_the_preset():
    preset = load_preset("laptop")
    kept = Architecture(layers=3, keep_layers=True)
    assert preset.model_config_of(kept, 999, role="row").layers == 3
    assert preset.model_config_of(Architecture(layers=3), 999, role="row").layers == 1


def test_what_a_preset_leaves_out_is_not_run_with_all():
    assert "single-head" in _expanded(["all"], load_preset("laptop"))
    assert "single-head" not in _expanded(["all"], load_preset("cpu"))
    assert _expanded(["single-head"], load_preset("cpu")) == ["single-head"]


def test_the_paper_tells_hidden_tokens_from_the_whole_vocabulary():
    preset = load_preset("cpu")
    assert RECIPES[preset.recipe].sampled_tokens is not None
    recipe = preset.pretraining_recipe(1000)
    # Not even named in records, so that cells run before there was such a thing stay valid.
    assert recipe.sampled_tokens is None and "sampled_tokens" not in recipe.model_dump()


def test_every_preset_is_valid():
    assert preset_names() == ["smoke", "cpu", "laptop", "gpu", "paper"]
    for name in preset_names():
        load_preset(name)


def test_small_w_s_are_passed_over_more_often():
    preset = load_preset("paper").model_copy(update={"pretrain_epochs": 2, "least_paragraphs": 1000})
    assert preset.pretraining_recipe(100).pretrain.epochs == 10
    assert preset.pretraining_recipe(300).pretrain.epochs == 4  # 1,200 paragraphs, not 900
    assert preset.pretraining_recipe(5000).pretrain.epochs == 2
