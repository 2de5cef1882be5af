"""The demo's whole story, on tiny texts of its own."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss

from helpers.command import record_of
from helpers.fitting import labelled, recipe, sentence
from tinylm.fit import budget
from tinylm.infer.committee import load_committee
from tinylm.report.demo import DemoResults
from tinylm.system.processes import run_side_by_side
from tinylm.text.tasks import load_task, split_rows
from tinylm.workflows import demo
from tinylm.workflows.demo import DemoSettings, run_demo

TOPICS = ("farm", "sea", "town")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoSettings, DemoResults]:
    home = tmp_path_factory.mktemp("demo")
    chance = random.Random(0)
    corpus = home / "corpus.txt"
    corpus.write_text(
        "\n".join(sentence(chance.choice(TOPICS), chance) for _ in range(300)), encoding="utf-8"
    )
    table = home / "task.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(*labelled(240, TOPICS), strict=True)])
    settings = DemoSettings(
        task=table,
        train_per_label=None,
        corpus=str(corpus),
        recipe=recipe(pretrain=1, finetune=6),
        deep={"layers": 2, "heads": 1},
        members=({"layers": 1, "heads": 1}, {"layers": 1, "heads": 2}),
        trials=2,
        example="the cow meets the hay",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLM_CACHE", str(home / "cache"))
        patch.setattr(budget, "LEAST_STEPS", 0)  # the recipe's epochs are enough, and quick
        # In this process: others would load PyTorch first.
        patch.setattr(demo, "run_side_by_side", lambda function, jobs: run_side_by_side(function, jobs, 1))
        results = run_demo(home / "out", 0, settings)
    return home / "out", settings, results


Finished = tuple[Path, DemoSettings, DemoResults]


def test_it_leaves_report_classifier_and_record(finished: Finished) -> None:
    out, settings, results = finished
    assert sorted(path.name for path in out.iterdir()) == ["classifier", "report.html", "tinylm.json"]
    figures = record_of(out)["figures"]
    assert figures["committee"] == results.committee
    assert set(figures["models"]) == {"BERT-2, 1 head", "BERT-1, 1 head", "BERT-1, 2 heads"}
    for model in figures["models"].values():
        assert len(model["gap"]) == settings.trials
        np.testing.assert_allclose(
            model["gap"], np.subtract(model["with_pretraining"], model["without"]), atol=1e-12
        )


def test_its_classifier_is_the_first_trials_committee_with_probabilities_to_believe(
    finished: Finished,
) -> None:
    out, settings, results = finished
    committee = load_committee(out / "classifier")
    task = load_task(settings.task)
    logits = committee.decision_function(task.test_texts)
    np.testing.assert_allclose(logits, results.committee_logits, atol=1e-3)
    predicted = committee.predict(task.test_texts)
    names = [task.label_names[label] for label in task.test_labels]
    assert accuracy_score(names, predicted) == pytest.approx(results.committee[0])
    # No other temperature gives validation articles a smaller cross-entropy.
    rows = split_rows(task.train_texts, task.train_labels, settings.validation, 0).validation
    assert (results.train_texts, results.validation_texts) == (len(task.train_texts) - len(rows), len(rows))
    validation = committee.decision_function([task.train_texts[row] for row in rows])

    def loss(temperature: float) -> float:
        return float(log_loss(task.train_labels[rows], softmax(validation / temperature, axis=1)))

    assert loss(committee.temperature) <= min(map(loss, np.geomspace(0.1, 10, 200))) + 1e-5
    assert abs(np.log(committee.temperature)) > 0.05


def test_no_arm_is_trained_beyond_its_epochs_and_each_takes_all_of_them(finished: Finished) -> None:
    _, _, results = finished
    for model in [results.deep, *results.members]:
        for trials, epochs in ((model.with_pretraining, 6), (model.without, 12)):
            for trial in trials:
                assert trial.log.kept == len(trial.log.scores) == trial.log.planned == epochs


def test_the_report_says_how_long_each_arm_was_trained(finished: Finished) -> None:
    out, _, results = finished
    html = (out / "report.html").read_text(encoding="utf-8")
    assert f"{results.linear_svm.accuracy:.3f}" in html
    assert "6 epochs with and 12 without pre-training" in " ".join(html.split())
