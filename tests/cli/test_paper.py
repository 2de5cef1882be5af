"""`tinylm paper`: what can be run is listed, stored results are reported, mistakes are refused."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.command import done, refused, tinylm
from tests.helpers.paper import FINETUNE, MadeUp, panel, row, store

from tinylm.paper.preset import preset_names
from tinylm.paper.spec import load_table, table_names


def test_list_names_every_table_with_its_rows_and_every_preset():
    out = " ".join(done("paper list").out.split())
    for name in table_names():
        assert name in out
        for each in load_table(name)[1].panels:
            assert all(one.name in out for one in each.rows)
    assert f"presets: {', '.join(preset_names())}" in out


def store_table(folder: Path) -> None:
    rows = [row("90000", size=90_000, paper={"gap": 0.05}), row("none", "none", None)]
    spec = {"panels": [panel(rows, without=FINETUNE, claims=["gap"])]}
    coverage = {"paragraphs": 90_000, "t_w": 300, "t_m": 5, "weighted_overlap": 0.99}
    pretrained = MadeUp([0.81, 0.82, 0.83], [0.71, 0.72, 0.70], coverage)
    store(folder, "mine", spec, {"": {"90000": pretrained, "none": MadeUp([0.71, 0.72])}})


def test_report_writes_markdown_and_html_from_stored_results(tmp_path: Path):
    store_table(tmp_path / "r")
    outcome = done("paper report --results", tmp_path / "r", "--out", tmp_path / "docs" / "paper.md")
    assert "docs/paper.md" in outcome.out and outcome.err == ""
    text = (tmp_path / "docs" / "paper.md").read_text()
    # By hand: means 0.82 and 0.71, both sd 0.01; t(4) = 2.7764.
    # Columns in which no row has anything are left out, as those of the paper's accuracy.
    assert "| row | Acc. | best epoch | gap paper | gap | T_M | W_S | T_W | overlap | tokens |" in text
    assert (
        "| 90000 | 0.820 ± 0.010 | 0.820 | 0.050 | +0.110 [+0.087, +0.133] | 5 | 90,000 | 300 | 0.9900 | 60 |"
        in text
    )
    assert "| TF-IDF + logistic regression | 0.700 |" in text
    assert "(gap > 0) | +0.050 | +0.110 [+0.087, +0.133] | ✓ shown |" in text
    page = (tmp_path / "r" / "report.html").read_text()
    assert "0.820 ± 0.010" in page and page.startswith("<!DOCTYPE html>")


def test_results_of_other_sizes_stand_beside_with_their_trials(tmp_path: Path):
    store_table(tmp_path / "r")
    rows = [row("90000", size=90_000), row("none", "none", None)]
    one = MadeUp([0.9], [0.75], {"paragraphs": 90_000, "t_w": 300, "t_m": 5, "weighted_overlap": 0.99})
    spec = {"panels": [panel(rows, without=FINETUNE)]}
    store(tmp_path / "gpu", "mine", spec, {"": {"90000": one, "none": MadeUp([])}})
    done("paper report --results", tmp_path / "r", "--beside", tmp_path / "gpu")
    text = (tmp_path / "r" / "report.md").read_text()
    assert "| gap | Acc. cpu | gap cpu |" in text
    assert "+0.110 [+0.087, +0.133] | 0.900 (1 trial) | +0.150 |" in text
    assert "| none | 0.715 ± 0.007 | 0.715 |  |  |  |  |" in text  # the row that was not run there


def test_the_report_says_what_trained_the_cells_and_what_supports_no_claim(tmp_path: Path):
    rows = [row("100", size=100), row("200", size=200)]
    spec = {"panels": [panel(rows, without=FINETUNE, claims=["gap"])]}
    coverage = {"paragraphs": 100, "t_w": 300, "t_m": 5, "weighted_overlap": 0.99}
    better = MadeUp([0.81, 0.82, 0.83], [0.71, 0.72, 0.70], coverage)
    worse = MadeUp([0.61, 0.62, 0.63], [0.71, 0.72, 0.70], coverage | {"paragraphs": 200})
    results = store(tmp_path, "mine", spec, {"": {"100": better, "200": worse}})
    plan = results.plan("mine")
    assert plan is not None
    for key in plan["panels"][0]["rows"][0]["trials"]:
        cell = results.read(key)
        assert cell is not None
        results.write(key, cell | {"device": "a GPU", "seconds": 3600.0})
    (tmp_path / "discussion.md").write_text("**T_M.** Ours is\nanother.\n\nAnd so on.\n")
    done("paper report --results", tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "- 3 cells (pre-trainings, fine-tunings and linear models) on a GPU: 3.0 hours in sum" in text
    assert "- 10 cells" in text and "on a CPU without a name: 0.0 hours" in text
    assert "shown in 1 of 2 |" in text
    assert "the opposite is shown by mine, W_S = 200 (random) (−0.090 [" in text
    assert "## Where ours differ, and why\n\n**T_M.** Ours is another.\n\nAnd so on.\n\n## " in text


def test_comparisons_of_one_trial_decide_nothing(tmp_path: Path):
    rows = [row("100", size=100), row("200", size=200)]
    spec = {"panels": [panel(rows, without=FINETUNE, claims=["gap"])]}
    coverage = {"paragraphs": 100, "t_w": 300, "t_m": 5, "weighted_overlap": 0.99}
    figures = {
        "100": MadeUp([0.81, 0.82, 0.83], [0.71, 0.72, 0.70], coverage),
        "200": MadeUp([0.6], [0.71], coverage | {"paragraphs": 200}),
    }
    store(tmp_path, "mine", spec, {"": figures})
    done("paper report --results", tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "+0.110 [+0.087, +0.133] | ✓ shown; 1 with one trial |" in text
    assert "| mine, W_S = 200 (random) |  | −0.110 | one trial |" in text


def test_report_without_results_says_what_to_run(tmp_path: Path):
    sentence = refused(tinylm("paper report --results", tmp_path / "nowhere"))
    assert "nowhere holds no results; run a table first: tinylm paper run table5." in sentence


def test_a_damaged_record_is_reported_and_the_rest_is_shown(tmp_path: Path):
    store_table(tmp_path)
    cell = next((tmp_path / "cells").glob("*.json"))
    cell.write_text("{")
    outcome = done("paper report --results", tmp_path)
    assert f"{cell.name} is damaged" in outcome.err and "report in" in outcome.out


def test_plan_counts_tokens_and_cells_and_trains_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    outcome = done("paper plan table5 table7 --preset smoke --store --results", tmp_path / "r")
    assert "0 cells are found" in outcome.out and "no cell to judge by" in outcome.out
    assert "Now: tinylm paper run table5 table7 --preset smoke" in outcome.out
    assert {path.name for path in (tmp_path / "r").glob("*.jsonl")} == {"table5.jsonl", "table7.jsonl"}
    assert not (tmp_path / "cache" / "paper" / "pretrained").exists()
    done("paper report --results", tmp_path / "r")
    text = (tmp_path / "r" / "report.md").read_text()
    assert "| 90,000 | 900 | 28,302 |" in text  # W_S is counted before anything is trained


def test_run_refuses_what_it_does_not_know(tmp_path: Path):
    assert "preset 'huge' is unknown; there are smoke, cpu" in refused(
        tinylm("paper run table5 --preset huge --results", tmp_path)
    )
    assert "table 'table99' is unknown; there are figure1, table1" in refused(
        tinylm("paper run table99 --preset smoke --results", tmp_path)
    )
    for command in ("run table5 --rows 5", "plan table5 --rows 5", "tune table5 --row 5"):
        assert "row '5' is unknown; table5 has all, 90000" in refused(
            tinylm(f"paper {command} --preset smoke --results", tmp_path)
        )
    assert "panel 'x' is unknown; table3 has a, c." in refused(
        tinylm("paper run table3 --panels x --preset smoke --results", tmp_path)
    )
    assert "no learning rates found for table5; search first" in refused(
        tinylm("paper run table5 --tuned --preset smoke --results", tmp_path)
    )
