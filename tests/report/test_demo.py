"""The demo's report: self-contained, true to its inputs, honest where results are unwelcome."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from torch import nn

from tinylm.fit.early_stopping import FinetuningLog
from tinylm.infer.baselines import Score
from tinylm.infer.latency import Latency
from tinylm.model.config import ModelConfig
from tinylm.report.demo import DemoResults, Trained, Trial, findings, headline, write_demo_report
from tinylm.text.coverage import Coverage

LABELS = ["Arts & <b>crafts</b>", "$Sums$", "Physics"]
VOID = {"meta", "br"}


def trial(accuracy: float) -> Trial:
    model = nn.Linear(1000, 1234)  # only its parameters are counted
    epochs = [{"epoch": 1, "loss": 1.0, "validation_score": 0.5}]
    epochs += [{"epoch": 2, "loss": 0.5, "validation_score": accuracy}]
    log = FinetuningLog(epochs, kept=2, planned=30)
    return Trial(model, log, np.zeros((2, 3)), np.zeros((6, 3)), accuracy)  # type: ignore[arg-type]


def trained(heads: int, after: list[float], before: list[float]) -> Trained:
    config = ModelConfig(vocab_size=100, layers=2 if heads == 4 else 1, heads=heads)
    return Trained(config.name, config, [*map(trial, after)], [*map(trial, before)])


@pytest.fixture
def results() -> DemoResults:
    """A clear gain of the deep model, +0.100 ± 0.010, and a committee above everything."""
    return DemoResults(
        label_names=LABELS,
        test_labels=np.array([0, 0, 1, 1, 2, 2]),
        coverage=Coverage(8_933, 7_811, 7_422, 1_333, 50, 0.9876),
        deep=trained(4, [0.81, 0.80, 0.79], [0.70, 0.70, 0.70]),
        members=[
            trained(1, [0.71, 0.72, 0.73], [0.60, 0.60, 0.60]),
            trained(2, [0.62, 0.58, 0.63], [0.60, 0.60, 0.60]),
        ],
        committee=[0.85, 0.86, 0.87],
        committee_logits=np.eye(3)[[0, 1, 1, 1, 2, 0]],
        calibration_error=0.034,
        linear_svm=Score(0.777, 0.77),
        latency={
            "deep": Latency(5.25, 6.5, 5.5),
            "member": Latency(1.5, 1.75, 1.6),
            "committee": Latency(3.5, 4.5, 3.6),
        },
        seconds=287.3,
        train_texts=1_000,
        validation_texts=200,
    )


class Page(HTMLParser):
    """Checks that tags are balanced, and collects what they hold."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}" if "style" not in self.open else ""

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def html(results: DemoResults, tmp_path: Path) -> str:
    path = tmp_path / "report.html"
    write_demo_report(results, path)
    assert list(tmp_path.iterdir()) == [path]  # no partial file is left
    return path.read_text(encoding="utf-8")


def test_loads_nothing_from_outside(html: str) -> None:
    page = Page(html)
    assert not page.named("script") and not page.named("link")
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href"):
                assert value and value.startswith(("#", "data:")), (name, value)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html


def test_ids_are_unique_and_every_reference_resolves(html: str) -> None:
    ids = [attributes["id"] for _, attributes in Page(html).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', html)
    assert references and {a or b for a, b in references} <= set(ids)


def test_every_plot_has_words_for_those_who_cannot_see_it(html: str) -> None:
    page = Page(html)
    plots = [attributes for attributes in page.named("div") if attributes.get("role") == "img"]
    assert len(plots) == len(page.named("svg")) == len(page.named("figcaption")) == 5
    text = " ".join(str(plot["aria-label"]) for plot in plots)
    for figure in (
        "0.800 ± 0.010 with",
        "0.700 ± 0.000 without",
        "3.50 ms",
        "mean 0.667",
    ):
        assert figure in text


def test_shows_the_figures_it_was_given(html: str) -> None:
    text = " ".join(Page(html).text.split())
    for row in (
        "W_S 8,933",
        "T_W 7,811",
        "T_C 7,422",
        "T_M 1,333",
        "Overlap 98.76%",
        "Train 1,000",
        "Validation 200",
        "Test 6",
        "Time 4 min 47 s",
        # 1000 x 1234 weights and 1234 biases; BERT-2 counts 2 x 4 + 1 layers
        "BERT-2, 4 heads 9 1.24 M 0.700 ± 0.000 0.800 ± 0.010 +0.100 ± 0.010 5.25 / 6.50",
        "BERT-1, 1 head 5 1.24 M 0.600 ± 0.000 0.720 ± 0.010 +0.120 ± 0.010 1.50 / 1.75",
        "BERT-1, 2 heads 5 1.24 M 0.600 ± 0.000 0.610 ± 0.026 +0.010 ± 0.026 soft",
        "soft committee 5+5 2.47 M 0.860 ± 0.010 3.50 / 4.50",
        "linear SVM 0.777",
    ):
        assert row in text


def test_confusion_counts_rows_by_topic(html: str) -> None:
    svg = next(part for part in html.split("<svg")[1:] if 'id="confusion-' in part).split("</svg>")[0]
    cells = [int(number) for number in re.findall(r">(\d+)</text>", svg)]
    assert cells == [1, 1, 2, 1, 1]  # of topic 0 one is taken for 1, of topic 2 one for 0


def test_label_names_are_text(html: str) -> None:
    assert "<b>" not in html
    assert "Arts &amp; &lt;b&gt;crafts" in html
    assert html.count(">$Sums$</text>") == 3  # no formula: rows and columns of one plot, bars of the other


def test_same_results_give_the_same_file(html: str, results: DemoResults, tmp_path: Path) -> None:
    write_demo_report(results, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html


def test_words_when_everything_won(results: DemoResults) -> None:
    assert headline(results) == "Pre-training raised the deep model's accuracy from 0.700 to 0.800"
    deep, members, committee, baseline = findings(results)
    assert "gap +0.100 ± 0.010 over 3 trials." in deep
    assert (
        "BERT-1, 2 heads, gap +0.010 ± 0.026 (within one standard deviation, so no clear effect)" in members
    )
    assert "0.860 ± 0.010, 0.060 above the deep model" in committee
    assert "3.50 ms per text, the deep model 5.25 ms" in committee
    assert "the same 1,200 labelled texts, reaches 0.777." in baseline
    assert "The committee is 0.083 above it, the deep model 0.023 above it." in baseline


def test_words_when_the_gap_is_within_its_deviation(results: DemoResults) -> None:
    unclear = replace(results, deep=trained(4, [0.72, 0.69, 0.71], [0.70, 0.70, 0.70]))
    assert headline(unclear).startswith("Pre-training made no clear difference")
    assert "(within one standard deviation, so no clear effect)" in findings(unclear)[0]


def test_words_when_pretraining_did_harm(results: DemoResults) -> None:
    worse = replace(results, deep=trained(4, [0.61, 0.60, 0.59], [0.70, 0.70, 0.70]))
    assert headline(worse) == "Pre-training lowered the deep model's accuracy from 0.700 to 0.600"
    assert "gap \N{MINUS SIGN}0.100 ± 0.010" in findings(worse)[0]


def test_words_when_the_committee_lost(results: DemoResults) -> None:
    lost = replace(results, committee=[0.76, 0.75, 0.74], linear_svm=Score(0.801, 0.8))
    _, _, committee, baseline = findings(lost)
    assert "0.750 ± 0.010, 0.050 below the deep model" in committee
    assert "The committee is 0.051 below it, the deep model 0.001 below it (within one" in baseline


def test_one_trial_proves_nothing(results: DemoResults) -> None:
    single = replace(results, deep=trained(4, [0.9], [0.5]), committee=[0.85])
    assert headline(single).startswith("Pre-training made no clear difference")


def test_the_terminal_shows_the_same_figures(results: DemoResults) -> None:
    console = Console(width=120, file=io.StringIO())
    console.print(results.table())
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    for row in (
        "BERT-2, 4 heads 9 0.700 ± 0.000 0.800 ± 0.010 +0.100 ± 0.010 5.25",
        "BERT-1, 1 head 5 0.600 ± 0.000 0.720 ± 0.010 +0.120 ± 0.010 1.50",
        "BERT-1, 2 heads 5 0.600 ± 0.000 0.610 ± 0.026 +0.010 ± 0.026",
        "soft committee 5+5 0.860 ± 0.010 3.50",
        "linear SVM 0.777",
    ):
        assert row in lines
