"""Intervals, slopes, the saturating curve and the claims, against cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tests.helpers.paper import MadeUp, store

from tinylm.paper.claims import claims
from tinylm.paper.spec import Panel, Table, load_table
from tinylm.paper.statistics import fit_curve, interval, rank_correlation, resampled, slopes
from tinylm.paper.view import PanelResult, RowResult, TableResult, load_results


def test_the_interval_is_students():
    # mean 0.03, sd 0.01, n 4: t(3) = 3.1824463, half = 3.1824463 * 0.01 / 2
    found = interval([0.02, 0.03, 0.04, 0.03 + 0.0])
    assert found is not None
    assert found.mean == pytest.approx(0.03)
    assert found.high - found.mean == pytest.approx(3.1824463 * np.sqrt(2 / 3) * 0.01 / 2)
    assert interval([0.1]) is None


def test_trials_that_are_all_equal_have_an_interval_of_no_width():
    found = interval([0.25, 0.25, 0.25])
    assert found is not None and found.low == found.mean == found.high == 0.25


def test_the_bootstrap_resamples_trials_and_takes_percentiles():
    """Against the same written out: rows keep their trials together, ends are 2.5 and 97.5 %."""
    gaps = np.random.default_rng(5).normal(0.05, 0.02, (4, 5))
    rng = np.random.default_rng(0)
    draws = [gaps[:, rng.integers(0, 5, 5)].mean(1) for _ in range(400)]
    by_hand = np.array([[draw.max(), draw.sum()] for draw in draws])
    found = resampled(lambda means: np.stack([means.max(0), means.sum(0)]), gaps, 400)
    for figure, values, mean in zip(found, by_hand.T, (gaps.mean(1).max(), gaps.mean(1).sum()), strict=True):
        low, high = np.percentile(values, [2.5, 97.5])
        assert (figure.mean, figure.low, figure.high) == pytest.approx((mean, low, high))


def test_slopes_are_per_tenfold_w_s_and_trial():
    gaps = np.array([[0.01, 0.05], [0.03, 0.05], [0.05, 0.05]])
    np.testing.assert_allclose(slopes([100, 1000, 10_000], gaps), [0.02, 0.0], atol=1e-12)


def test_the_curve_finds_what_made_the_gaps():
    sizes = [500, 1000, 5000, 20_000, 100_000]
    rng = np.random.default_rng(0)
    true = 0.1 * np.array(sizes) / (np.array(sizes) + 3000)
    curve = fit_curve(sizes, true[:, None] + rng.normal(0, 0.001, (5, 5)))
    assert curve.bounded
    assert curve.full.mean == pytest.approx(0.1, rel=0.03)
    assert curve.w_s_90.mean == pytest.approx(27_000, rel=0.15)
    assert curve.full.low <= curve.full.mean <= curve.full.high


def test_a_gap_that_does_not_saturate_gives_no_w_s():
    sizes = [500, 1000, 5000]
    curve = fit_curve(sizes, np.array([[0.005, 0.005], [0.01, 0.01], [0.05, 0.05]]))
    assert not curve.bounded


def test_rank_correlation():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 1], [3, 2, 1]) == 0


def panel_of(rows: list[dict[str, object]], plots: list[str], table: str, **more: object) -> PanelResult:
    """A panel with rows of given trials."""
    spec = Panel.model_validate(
        {
            "title": "t",
            "task": {"name": "fewrel", "train_per_label": 5, "test_per_label": 5},
            "finetune": {"learning_rate": 1e-4, "weight_decay": 0},
            "without": {"learning_rate": 1e-4, "weight_decay": 0},
            "plots": plots,
            "claims": more.get("claims", []),
            "rows": [row["spec"] for row in rows],
        }
    )
    results = [
        RowResult(
            spec=spec.rows[i],
            architecture="BERT-1",
            layer_count=5,
            parameters=None,
            by_trial=dict(enumerate(row["accuracy"])),
            best=row["accuracy"],
            gap_by_trial=dict(enumerate(row.get("gaps", []))),
            per_label=np.zeros(0),
            coverage=row.get("coverage", {}),
            mean_tokens=None,
            absent_share=None,
            loss=[],
            planned=3,
            seconds=0.0,
            note="",
        )
        for i, row in enumerate(rows)
    ]
    task = {"name": "fewrel", "labels": ["a", "b"], "notes": []}
    return PanelResult(table, spec, task, results, {}, more.get("committee"), None)  # type: ignore[arg-type]


def random_row(w_s: int, gaps: list[float], t_m: int = 0) -> dict[str, object]:
    return {
        "spec": {"name": f"r{w_s}", "w_s": {"select": "random", "size": w_s}},
        "accuracy": [0.5 + gap for gap in gaps],
        "gaps": gaps,
        "coverage": {"paragraphs": w_s, "t_m": t_m},
    }


def verdicts(*panels: PanelResult) -> list[str]:
    spec = Table.model_validate({"title": "t", "uses": ["table1"]})
    table = TableResult("t", spec, list(panels), {}, "cpu", {})
    return [claim.verdict for claim in claims([table])]


def test_a_clear_gap_that_grows_is_shown():
    rows = [random_row(100, [0.01, 0.011, 0.012]), random_row(1000, [0.05, 0.051, 0.052])]
    assert verdicts(panel_of(rows, ["gap"], "table3", claims=["gap", "growth"]))[:2] == ["shown", "shown"]


def test_a_panel_is_held_against_the_claims_of_its_spec_alone():
    rows = [random_row(100, [0.01, 0.011, 0.012]), random_row(1000, [0.05, 0.051, 0.052])]
    assert verdicts(panel_of(rows, ["gap"], "table3", claims=["growth"]))[:2] == ["not run", "shown"]


def test_a_plan_from_before_panels_named_their_claims_takes_those_of_today(tmp_path):
    spec = load_table("table9")[1].model_dump(mode="json")
    names = [row["name"] for row in spec["panels"][0]["rows"]]
    results = store(tmp_path, "table9", spec, {"": {name: MadeUp([0.8, 0.9]) for name in names}})
    plan = results.plan("table9")
    assert plan is not None
    del plan["spec"]["panels"][0]["claims"]
    results.write_plan("table9", plan)
    (table,) = load_results(results)
    assert table.panels[0].spec.claims == ["untrained-committee"]


def test_one_unclear_comparison_leaves_a_claim_not_shown():
    rows = [random_row(100, [-0.01, 0.011, 0.002]), random_row(1000, [0.05, 0.051, 0.052])]
    assert verdicts(panel_of(rows, ["gap"], "table3", claims=["gap", "growth"]))[0] == "not shown"


def test_a_gap_that_falls_is_not_shown_to_grow():
    rows = [random_row(100, [0.05, 0.051, 0.052]), random_row(1000, [0.01, 0.011, 0.012])]
    assert verdicts(panel_of(rows, ["gap"], "table3", claims=["gap", "growth"]))[1] == "not shown"


@pytest.mark.parametrize(("loss", "verdict"), [(0.03, "shown"), (-0.03, "not shown"), (0.0, "not shown")])
def test_mismatch_is_compared_at_equal_w_s(loss, verdict):
    same = random_row(100, [0.05, 0.051, 0.052], t_m=10)
    other = random_row(50, [0.5, 0.5, 0.5], t_m=20)
    mismatched = {
        "spec": {"name": "m", "w_s": {"select": "mismatched", "size": 100}},
        "accuracy": [0.55 - loss, 0.552 - loss, 0.551 - loss],
        "gaps": [],
        "coverage": {"paragraphs": 100, "t_m": 90},
    }
    assert verdicts(panel_of([other, same, mismatched], ["t_m"], "table4", claims=["overlap"]))[2] == verdict


@pytest.mark.parametrize(
    ("committee", "verdict"),
    [([0.80, 0.81, 0.80], "shown"), ([0.797, 0.806, 0.797], "shown"), ([0.78, 0.79, 0.78], "not shown")],
)
def test_a_committee_reaches_the_deep_model_within_one_percent(committee, verdict):
    deep = {
        "spec": {"name": "d", "role": "deep", "w_s": {"select": "none"}},
        "accuracy": [0.80, 0.81, 0.80],
    }
    found = {"numbers": [0, 1, 2], "trials": committee}
    for i, claim in enumerate(("committee", "untrained-committee")):
        panel = panel_of([deep], ["committee"], "t", committee=found, claims=[claim])
        assert verdicts(panel)[3 + i] == verdict and verdicts(panel)[4 - i] == "not run"


def test_trials_are_paired_by_number_where_some_are_missing():
    deep = {
        "spec": {"name": "d", "role": "deep", "w_s": {"select": "none"}},
        "accuracy": [0.8, 0.1, 0.8, 0.8],
    }
    # By position, the committee would be compared with the deep model's second trial.
    found = {"numbers": [0, 2, 3], "trials": [0.8, 0.8, 0.8]}
    panel = panel_of([deep], [], "t", committee=found, claims=["committee"])
    assert verdicts(panel)[3] == "shown"
