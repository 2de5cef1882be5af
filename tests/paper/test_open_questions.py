"""Open questions, on made-up cells whose findings are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.paper import FINETUNE, MadeUp, panel, row, store

from tinylm.paper.open_questions import open_questions
from tinylm.paper.results import Results
from tinylm.paper.view import load_results
from tinylm.report.document import Document, markdown
from tinylm.report.format import MINUS, signed

NOISE = np.array([-0.002, 0.001, 0.001])  # of three trials


def section(folder: Path) -> str:
    """The one open question that is stored, as Markdown."""
    (question,) = open_questions(load_results(Results(folder)))
    return markdown(Document("", "", [question.section]), "plots")


def answer(text: str) -> str:
    """The answer of a section."""
    return next(line for line in text.splitlines() if line.startswith("**Answer.** "))


def store_gaps(folder: Path, gaps: Sequence[float], t_m: Sequence[int], overlap: Sequence[float]) -> None:
    """Rows of these gaps and tokens, with W_S of 100, 200, 400, ..."""
    sizes = [100 * 2**i for i in range(len(gaps))]
    rows = [row(f"r{size}", size=size) for size in sizes]
    figures = {
        f"r{size}": MadeUp(
            (0.5 + gap + NOISE).tolist(),
            [0.5, 0.5, 0.5],
            {"paragraphs": size, "t_m": t_m[i], "weighted_overlap": overlap[i]},
        )
        for i, (size, gap) in enumerate(zip(sizes, gaps, strict=True))
    }
    store(folder, "t", {"panels": [panel(rows, without=FINETUNE)]}, {"": figures})


RISING, MIXED = list(range(1, 13)), [*range(7, 13), *range(1, 7)]


@pytest.mark.parametrize(
    ("by_t_m", "by_overlap", "words", "correlations"),
    [
        (MIXED, RISING, "The overlap by frequency predicts the gap better than the plain T_M", (-0.51, 1.0)),
        (RISING, MIXED, "The plain T_M predicts the gap better than the overlap by frequency", (1.0, -0.51)),
        (RISING, RISING, "No difference between the plain T_M and the overlap", (1.0, 1.0)),
    ],
)
def test_weighted_overlap_names_the_better_predictor(tmp_path, by_t_m, by_overlap, words, correlations):
    # Spearman of MIXED and RISING by hand: 1 - 6 * 12 * 36 / (12 * 143) = -0.510
    gaps = [0.01 * rank for rank in RISING]
    store_gaps(tmp_path, gaps, [100 - rank for rank in by_t_m], [0.8 + 0.01 * rank for rank in by_overlap])
    store(tmp_path, "question", {"analysis": "weighted-overlap", "uses": ["t"]}, {})
    text = section(tmp_path)
    assert words in answer(text) and "12 rows with a gap, 1 task;" in text
    assert f"| T_M | {signed(correlations[0], 2)} [" in text
    assert f"| frequency-weighted overlap | {signed(correlations[1], 2)} [" in text
    assert "| W_S | +1.00 [+0.9" in text
    assert f"| overlap minus T_M | {signed(correlations[1] - correlations[0], 2)} [" in text


def test_weighted_overlap_needs_four_rows(tmp_path: Path):
    store_gaps(tmp_path, [0.01, 0.02, 0.03], [3, 2, 1], [0.9, 0.91, 0.92])
    store(tmp_path, "question", {"analysis": "weighted-overlap", "uses": ["t"]}, {})
    assert "Too few rows with a gap were run." in section(tmp_path)


def test_a_row_that_two_tables_share_counts_once(tmp_path: Path):
    store_gaps(tmp_path, [0.01, 0.02, 0.03, 0.04], [4, 3, 2, 1], [0.9, 0.91, 0.92, 0.93])
    uses = ["t", "u"]
    results = Results(tmp_path)
    plan = results.plan("t")
    assert plan is not None
    results.write_plan("u", plan)
    store(tmp_path, "question", {"analysis": "weighted-overlap", "uses": uses}, {})
    assert "4 rows with a gap" in section(tmp_path)


def test_the_gap_curve_tells_the_w_s_of_90_percent(tmp_path: Path):
    half = 300
    gaps = [0.1 * size / (size + half) for size in (100, 200, 400, 800, 1600, 3200)]
    store_gaps(tmp_path, gaps, [1] * 6, [1.0] * 6)
    store(tmp_path, "question", {"analysis": "gap-curve", "uses": ["t"]}, {})
    text = section(tmp_path)
    line = next(line for line in text.splitlines() if line.startswith("| t: FewRel, 2 labels |"))
    full, w_s_90 = (float(cell.split()[0].replace(",", "")) for cell in line.split("|")[2:4])
    assert full == pytest.approx(0.1, rel=0.05) and w_s_90 == pytest.approx(9 * half, rel=0.1)
    assert f"90 % of the full gap are reached at W_S {w_s_90:,.0f} [" in answer(text)


def test_selections_of_a_question_of_its_own_are_compared_at_equal_w_s(tmp_path: Path):
    """T_M and the gap both follow W_S, and within one W_S the gap follows the overlap alone."""
    rows, figures = [], {}
    for size, base in ((100, 0.1), (200, 0.2), (400, 0.3)):
        for i, (t_m, overlap) in enumerate([(1, 0.2), (2, 0.4), (3, 0.3)]):
            name = f"{size}-{i}"
            rows.append(row(name, "mismatched", size))
            coverage = {"paragraphs": size, "t_m": t_m - 30 * base, "weighted_overlap": base + overlap / 100}
            accuracy = (0.5 + base + overlap / 100 + NOISE / 1e3).tolist()
            figures[name] = MadeUp(accuracy, [0.5] * 3, coverage)
    question = {"analysis": "weighted-overlap", "panels": [panel(rows, without=FINETUNE)]}
    store(tmp_path, "question", question, {"": figures})
    text = section(tmp_path)
    line = next(line for line in text.splitlines() if line.startswith("| frequency-weighted overlap"))
    assert [float(cell.split()[0]) for cell in line.split("|")[2:4]] == [1, 1]
    t_m = next(line for line in text.splitlines() if line.startswith("| T_M"))
    plain, partial = (cell.strip() for cell in t_m.split("|")[2:4])
    assert float(plain.split()[0]) > 0.8 and partial.startswith(MINUS)  # more missing, larger gap


def test_a_gap_that_does_not_saturate_determines_no_w_s(tmp_path: Path):
    store_gaps(tmp_path, [0.001, 0.002, 0.004, 0.008], [1] * 4, [1.0] * 4)
    store(tmp_path, "question", {"analysis": "gap-curve", "uses": ["t"]}, {})
    text = section(tmp_path)
    assert "not determined by these W_S" in text
    assert answer(text) == "**Answer.** For 1 task the W_S that were run do not determine it."


def test_a_gap_curve_needs_three_w_s(tmp_path: Path):
    store_gaps(tmp_path, [0.01, 0.02], [1] * 2, [1.0] * 2)
    store(tmp_path, "question", {"analysis": "gap-curve", "uses": ["t"]}, {})
    assert "Too few W_S were run." in section(tmp_path)


@pytest.mark.parametrize(
    ("loss", "verdict"),
    [
        (0.02, "Tokens that the task lacks do harm"),
        (-0.02, "Tokens that the task lacks help"),
        (0.0, "No harm of tokens that the task lacks is shown"),
    ],
)
def test_reverse_mismatch_tells_the_change_over_the_shares_that_were_run(tmp_path, loss, verdict):
    """The accuracy falls by `loss` from 20 to 40 % of T_W."""
    rows = [row(name, "reverse", w_s={"absent": name}) for name in ("many", "some", "none")]
    coverage = {"paragraphs": 100, "t_w": 150, "t_m": 7, "weighted_overlap": 0.99}
    figures = {
        name: MadeUp((0.8 - part * loss + NOISE).tolist(), coverage=coverage | {"absent_from_task": absent})
        for name, part, absent in (("none", 0, 30), ("some", 0.5, 45), ("many", 1, 60))
    }
    store(tmp_path, "question", {"analysis": "reverse-mismatch", "panels": [panel(rows)]}, {"": figures})
    text = section(tmp_path)
    assert "| none | 100 | 7 | 30 | 20 % | 1.0% | 0.9900 | 0.800 ± 0.002 |" in text
    assert verdict in answer(text)
    changed = f"{0.0 - loss:+.3f}".replace("-", "\N{MINUS SIGN}")
    assert f"from 20 % to 40 % of T_W outside T_C, accuracy changes by {changed} [" in answer(text)


def overlap_control(tmp_path: Path, accuracies: dict[str, list[float]]) -> str:
    """What the report says of a random W_S, its control and a strict one, with the trials of each."""
    rows = [
        row("random"),
        row("control", "same-lengths", w_s={"lengths_of": "mismatched"}),
        row("strict", "mismatched"),
    ]
    coverage = {"paragraphs": 100, "t_m": 7, "weighted_overlap": 0.9}
    figures = {name: MadeUp(trials, coverage=coverage) for name, trials in accuracies.items()}
    store(tmp_path, "question", {"analysis": "overlap-control", "panels": [panel(rows)]}, {"": figures})
    return section(tmp_path)


def test_the_harm_of_missing_tokens_is_told_from_that_of_short_paragraphs(tmp_path: Path):
    accuracies = {"random": 0.8, "control": 0.77, "strict": 0.77}
    text = overlap_control(tmp_path, {name: (mean + NOISE).tolist() for name, mean in accuracies.items()})
    assert "| control | 100 | 60 | 7 | 0.9000 | 0.770 ± 0.002 |" in text
    assert "what shorter paragraphs do: +0.030 [+0.026, +0.034]; harm is **shown**" in text
    assert "minus strict: what its tokens do: +0.000 [−0.004, +0.004]; harm is **not shown**" in text
    assert (
        "Missing tokens do harm in 0 of 1 comparisons (+0.000), shorter paragraphs in 1 of 1 comparisons"
        " (+0.030)" in answer(text)
    )


@pytest.mark.parametrize(
    ("loss", "verdict", "best"),
    [
        (0.02, "the shallow one is better", "bert1"),
        (-0.02, "the deep one is better", "bert6"),
        (0.0, "no difference is shown", "bert1"),
    ],
)
def test_depths_are_compared_at_equal_time(tmp_path: Path, loss: float, verdict: str, best: str):
    rows = [row("bert6"), row("bert1", equal_seconds=["bert6"])]
    figures = {
        "bert6": MadeUp((0.8 - loss + NOISE).tolist(), coverage={"paragraphs": 100}),
        "bert1": MadeUp((0.8001 + NOISE).tolist(), coverage={"paragraphs": 100}),
    }
    results = store(tmp_path, "question", {"analysis": "depth", "panels": [panel(rows)]}, {"": figures})
    plan = results.plan("question")
    assert plan is not None
    plan["panels"][0]["rows"][0]["layer_count"] = 25
    results.write_plan("question", plan)
    text = section(tmp_path)
    assert "| bert1 | model of bert1 | 5 | 1 | 0.800 ± 0.002 |" in text
    assert "bert1 minus bert6 " in answer(text) and verdict in answer(text)
    assert f"{best} has the highest mean." in answer(text)


def test_a_difference_of_one_trial_has_no_interval_and_is_not_shown(tmp_path: Path):
    text = overlap_control(tmp_path, {"random": [0.8], "control": [0.77], "strict": [0.6]})
    assert "its tokens do: +0.170 (one trial, no interval); harm is **not shown**." in text
    assert "Missing tokens do harm in no comparison that has an interval" in answer(text)


def test_a_question_that_was_not_run_says_so(tmp_path: Path):
    rows = [row("none", "reverse", w_s={"absent": "none"})]
    question = {"analysis": "reverse-mismatch", "panels": [panel(rows)]}
    store(tmp_path, "question", question, {"": {"none": MadeUp([])}})
    assert "Not run." in section(tmp_path)
