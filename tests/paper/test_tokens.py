"""Token counts beside the paper's, on made-up coverage."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.paper import MadeUp, panel, row, store

from tinylm.paper.tokens import token_section
from tinylm.paper.view import load_results
from tinylm.report.document import Document, markdown

ROWS = [
    row("40000", size=40_000, paper={"w_s": 40_000, "t_w": 27_782, "t_m": 15}),
    # The vocabulary has 30,522 tokens, so no more than 8,385 can be missing.
    row("5000", size=5_000, paper={"w_s": 5_000, "t_w": 22_137, "t_m": 11_059}),
    row("custom", "custom-made", None, paper={"w_s": 37_936, "t_m": 1_053}),
    row("mismatched", "mismatched", 40_000, w_s={"missing": 8_661},
        paper={"w_s": 40_000, "t_w": 14_799, "t_m": 8_661}),
]  # fmt: skip
FOUND = {
    "40000": {"paragraphs": 40_000, "t_w": 27_829, "t_m": 23},
    "5000": {"paragraphs": 5_000, "t_w": 22_525, "t_m": 1_183},
    "custom": {"paragraphs": 5_924, "t_w": 10_521, "t_m": 2_212},
    "mismatched": {"paragraphs": 40_000, "t_w": 21_555, "t_m": 5_814},
}


def section(folder: Path, vocabulary: int) -> str | None:
    figures = {name: MadeUp([], coverage=coverage) for name, coverage in FOUND.items()}
    results = store(folder, "t", {"panels": [panel(ROWS, t_c=12_829)]}, {"": figures})
    plan = results.plan("t")
    assert plan is not None
    plan["corpus"] = {"paragraphs": 281_652, "mean_tokens": 99.6, "vocabulary": vocabulary}
    for each in plan["panels"][0]["rows"]:
        each["coverage"] = FOUND[each["name"]]
    results.write_plan("t", plan)
    found = token_section(load_results(results))
    return found and markdown(Document("", "", [found]), "plots")


def test_counts_stand_beside_the_papers_with_the_reason_of_a_difference(tmp_path: Path):
    text = section(tmp_path, 30_522)
    assert text is not None
    assert "| 40,000 | 40,000 | 27,782 | 27,829 | +0.2% |" in text
    assert "| 12,829 | 50 | \N{MINUS SIGN}99.6% |" in text  # T_C of the made-up task
    assert "| t | 40000 | random | 40,000 | 40,000 | 15 | 23 |  |" in text
    assert "with T_W 22,137, only 8,385 tokens of the vocabulary are missing" in text
    assert "4.7% of the paper's corpus, see below" in text
    assert "the largest in reach: 14.2% of all paragraphs must qualify, in the paper 0.7%" in text


def test_counts_of_another_vocabulary_are_not_compared(tmp_path: Path):
    assert section(tmp_path, 4_000) is None


def test_custom_made_selections_are_compared_with_the_size_of_the_corpus(tmp_path: Path):
    rows = [row("custom", "custom-made", None, paper={"w_s": 37_936, "t_m": 1_053})]
    other = [row("custom", "custom-made", None, paper={"w_s": 105_101, "t_m": 562})]
    coverage = {"t_w": 10_521, "t_m": 2_212}
    figures = {
        "x": {"custom": MadeUp([], coverage={"paragraphs": 5_924, **coverage})},
        "y": {"custom": MadeUp([], coverage={"paragraphs": 5_066, **coverage})},
    }
    panels = [panel(rows, name="x", t_c=12_829), panel(other, name="y", t_c=12_306)]
    results = store(tmp_path, "t", {"panels": panels}, figures)
    plan = results.plan("t")
    assert plan is not None
    plan["corpus"] = {"paragraphs": 281_652, "mean_tokens": 99.6, "vocabulary": 30_522}
    for each, paragraphs in zip(plan["panels"], (5_924, 5_066), strict=True):
        each["rows"][0] |= {"coverage": {"paragraphs": paragraphs, **coverage}, "mean_tokens": 61.4}
    results.write_plan("t", plan)
    found = token_section(load_results(results))
    assert found is not None
    text = markdown(Document("", "", [found]), "plots")
    # By hand: 281,652 / 6,000,000 = 4.69 %; of 37,936 that is 1,781, and T_W in print 12,829 - 1,053.
    assert (
        "| t(x) | 12,829 | 50 | 37,936 | 1,781 | 5,924 | 11,776 | 10,521 | 1,053 | 2,212 | 61 | 3.3" in text
    )
    assert (
        "| t(y) | 12,306 | 50 | 105,101 | 4,934 | 5,066 | 11,744 | 10,521 | 562 | 2,212 | 61 | as m" in text
    )
    assert "In print, 105,101 paragraphs qualify with a T_C of 12,306 (t(y)) and only 37,936" in text
