"""Intervals, slopes, the saturating curve and the claims, against cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from tests.helpers.paper import MadeUp, store

from tinylm.paper.claims import claims
from tinylm.paper.spec import Panel, Table, load_table
from tinylm.paper.statistics import (
    difference,
    fit_curve,
    growth,
    interval,
    rank_correlation,
    resampled,
    resampled_rows,
    slope,
)
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


def test_the_interval_of_a_difference_is_welchs():
    # Means 0.82 and 0.71, variances 1e-4 each, n 3: df 4, t(4) = 2.7764451, se = sqrt(2e-4 / 3)
    found = difference([0.81, 0.82, 0.83], [0.71, 0.72, 0.70])
    assert found is not None
    half = 2.7764451 * np.sqrt(2e-4 / 3)
    assert (found.mean, found.low, found.high) == pytest.approx((0.11, 0.11 - half, 0.11 + half))
    found = difference([0.81, 0.83], [0.71, 0.72, 0.70, 0.75])
    scipys = stats.ttest_ind([0.81, 0.83], [0.71, 0.72, 0.70, 0.75], equal_var=False).confidence_interval(
        0.95
    )
    assert found is not None and (found.low, found.high) == pytest.approx((scipys.low, scipys.high))
    assert difference([0.1], [0.1, 0.2]) is None


def test_a_difference_of_equal_values_has_an_interval_of_no_width():
    found = difference([0.5, 0.5], [0.25, 0.25, 0.25])
    assert found is not None and found.low == found.mean == found.high == 0.25


def test_the_bootstrap_resamples_each_sample_and_takes_percentiles():
    """Against the same written out; ends are 2.5 and 97.5 %."""
    samples = [np.random.default_rng(5).normal(0.05, 0.02, size) for size in (5, 3, 2)]
    rng = np.random.default_rng(0)
    draws = np.array([each[rng.integers(0, len(each), (400, len(each)))].mean(1) for each in samples])
    found = resampled(lambda means: np.stack([means.max(0), means.sum(0)]), samples, 400)
    means = [each.mean() for each in samples]
    for figure, values, mean in zip(
        found, (draws.max(0), draws.sum(0)), (max(means), sum(means)), strict=True
    ):
        low, high = np.percentile(values, [2.5, 97.5])
        assert (figure.mean, figure.low, figure.high) == pytest.approx((mean, low, high))


def test_rows_that_are_a_sample_are_resampled_with_their_values():
    """Rows of no noise of their own: the spread of their mean is that of drawing rows."""
    means = np.random.default_rng(3).normal(0.05, 0.02, 40)
    samples = [[mean, mean] for mean in means]
    (found,) = resampled_rows(lambda rows, of: np.array([of.mean()]), samples, ["t"] * 40, 2000)
    scipys = stats.bootstrap((means,), np.mean, method="percentile", rng=1).confidence_interval
    assert found.mean == pytest.approx(means.mean())
    assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high), abs=1e-3)


def test_the_rows_of_each_group_stay_as_many():
    groups = ["a", "a", "b"]
    seen = []

    def statistic(rows: np.ndarray, means: np.ndarray) -> np.ndarray:
        assert means.tolist() == [[1, 2, 3][row] for row in rows]
        seen.append([groups[row] for row in rows])
        return means[:1]

    resampled_rows(statistic, [[1, 1], [2, 2], [3, 3]], groups, 20)
    assert set(map(tuple, seen)) == {("a", "a", "b")}


def test_a_slope_needs_figures_that_vary():
    found = slope([0, 1, 2], [0.1, 0.3, 0.5])
    assert found is not None and found.mean == pytest.approx(0.2)
    assert slope([1, 1, 1], [0.1, 0.2, 0.3]) is None


def test_growth_is_the_slope_for_ten_times_w_s():
    # y = 1, 3, 2, 4 hundredths at x = 2, 2, 3, 3: slope 1, residuals +-1, s^2 = 4 / 2, Sxx = 1.
    found = growth([100, 100, 1000, 1000], [0.01, 0.03, 0.02, 0.04])
    assert found is not None
    half = 4.3026527 * np.sqrt(2) * 0.01
    assert (found.mean, found.low, found.high) == pytest.approx((0.01, 0.01 - half, 0.01 + half))
    assert growth([100, 1000], [0.1, 0.2]) is None


def test_trials_that_share_a_pretraining_count_as_one():
    rows = [
        random_row(100, [0.01, 0.03, 0.02]) | {"starts": ["a", "b", "a"]},
        {"spec": {"name": "n", "w_s": {"select": "none"}}, "accuracy": [0.1, 0.2, 0.3]},
    ]
    pretrained, none = panel_of(rows, [], "t").rows
    assert pretrained.arm == pytest.approx([0.515, 0.53])  # 0.51 and 0.52 began from "a"
    assert none.arm == [0.1, 0.2, 0.3]
    assert pretrained.gap == pytest.approx(0.0225) and none.gap is None
    assert pretrained.gap_interval == difference([0.515, 0.53], [0.5, 0.5, 0.5])


def test_the_curve_finds_what_made_the_gaps():
    sizes = [500, 1000, 5000, 20_000, 100_000]
    rng = np.random.default_rng(0)
    true = 0.1 * np.array(sizes) / (np.array(sizes) + 3000)
    arms = 0.5 + true[:, None] + rng.normal(0, 0.001, (5, 5))
    curve = fit_curve(sizes, arms.tolist(), [0.499, 0.5, 0.501])
    assert curve.bounded
    assert curve.full.mean == pytest.approx(0.1, rel=0.03)
    assert curve.w_s_90.mean == pytest.approx(27_000, rel=0.15)
    assert curve.full.low <= curve.full.mean <= curve.full.high


def test_a_gap_that_does_not_saturate_gives_no_w_s():
    sizes = [500, 1000, 5000]
    curve = fit_curve(sizes, [[0.505, 0.505], [0.51, 0.51], [0.55, 0.55]], [0.5, 0.5])
    assert not curve.bounded


def test_rank_correlation():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 1], [3, 2, 1]) == 0


def test_the_partial_correlation_holds_a_third_figure_equal():
    x, y, z = [1, 4, 2, 3, 6, 5], [2, 1, 3, 6, 4, 5], [1, 2, 3, 4, 5, 6]
    xy, xz, yz = (float(stats.spearmanr(*pair).statistic) for pair in ((x, y), (x, z), (y, z)))
    by_formula = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert rank_correlation(x, y, z) == pytest.approx(by_formula)
    assert rank_correlation(x, y, [7] * 6) == pytest.approx(xy)  # nothing to hold
    assert rank_correlation(x, y, x) == 0


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
            key=f"{table} {i}",
            parameters=None,
            by_trial=dict(enumerate(row["accuracy"])),
            best=row["accuracy"],
            without=[0.5] * len(row.get("gaps", [])),
            start_by_trial=dict(enumerate(row.get("starts", []))),
            per_label=np.zeros(0),
            coverage=row.get("coverage", {}),
            mean_tokens=None,
            absent_share=None,
            loss=[],
            single_heads=[],
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


def test_a_comparison_that_two_tables_share_counts_once():
    rows = [random_row(100, [0.01, 0.011, 0.012])]
    one, again = (panel_of(rows, [], table, claims=["gap"]) for table in ("t", "t"))
    spec = Table.model_validate({"title": "t", "uses": ["table1"]})
    gap, *_ = claims(
        [TableResult("t", spec, [one, again, panel_of(rows, [], "u", claims=["gap"])], {}, "", {})]
    )
    assert len(gap.evidence) == 2


@pytest.mark.parametrize(
    ("gaps", "shown", "opposed"),
    [([0.01, 0.011], True, False), ([-0.01, 0.01], False, False), ([-0.01, -0.011], False, True)],
)
def test_the_opposite_of_a_claim_is_told_from_an_open_case(gaps, shown, opposed):
    spec = Table.model_validate({"title": "t", "uses": ["table1"]})
    panel = panel_of([random_row(100, gaps)], [], "t", claims=["gap"])
    (one,) = claims([TableResult("t", spec, [panel], {}, "", {})])[0].evidence
    assert (one.shown, one.opposed) == (shown, opposed)


@pytest.mark.parametrize(
    ("committee", "verdict"),
    [([0.8, 0.802, 0.8], "shown"), ([0.797, 0.799, 0.797], "shown"), ([0.79, 0.792, 0.79], "not shown")],
)
def test_a_committee_reaches_the_deep_model_within_one_percent(committee, verdict):
    deep = {
        "spec": {"name": "d", "role": "deep", "w_s": {"select": "none"}},
        "accuracy": [0.80, 0.802, 0.80],
    }
    found = {"numbers": [0, 1, 2], "trials": committee}
    for i, claim in enumerate(("committee", "untrained-committee")):
        panel = panel_of([deep], ["committee"], "t", committee=found, claims=[claim])
        assert verdicts(panel)[3 + i] == verdict and verdicts(panel)[4 - i] == "not run"


def test_the_papers_figure_stands_beside_each_comparison():
    paper = [{"w_s": 100, "gap": 0.01}, {"w_s": 1000, "gap": 0.03}, {"w_s": 10_000, "gap": 0.05}]
    rows = [random_row(of["w_s"], [0.02, 0.021, 0.022]) for of in paper]
    for row, of in zip(rows, paper, strict=True):
        row["spec"]["paper"] = of  # type: ignore[index]
    spec = Table.model_validate({"title": "t", "uses": ["table1"]})
    panel = panel_of(rows, [], "t", claims=["gap", "growth"])
    gap, growing, *_ = claims([TableResult("t", spec, [panel], {}, "cpu", {})])
    assert [one.paper for one in gap.evidence] == [0.01, 0.03, 0.05] and gap.printed == [0.01, 0.03, 0.05]
    assert growing.evidence[0].paper == pytest.approx(0.02)  # for ten times W_S
