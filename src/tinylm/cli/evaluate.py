"""`tinylm evaluate`: how good a classifier or a committee is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tinylm.cli.common import (
    LabelColumns,
    Labels,
    ModelFolder,
    PerLabel,
    Separator,
    Settings,
    TestFile,
    TextColumns,
    TextEncoding,
    columns_fitted_on,
    console,
    load_task,
    print_notes,
    record_of_fit,
    remark,
    say,
)
from tinylm.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from tinylm.infer.predictor import Predictor
    from tinylm.text.labelled import Labelled
    from tinylm.text.tasks import Task


def evaluate_command(
    model: ModelFolder,
    data: Annotated[
        str | None,
        typer.Argument(help="Labelled texts, as for 'tinylm fit'. Or give --task.", metavar="DATA"),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="Evaluate on the test texts of a task, with a linear SVM beside it: fewrel, agnews, dbpedia,"
            " vital-topics, or a table that is split as in 'tinylm finetune'.",
            metavar="TASK",
        ),
    ] = None,
    labels: Labels = None,
    train_per_label: PerLabel = None,
    test_per_label: PerLabel = None,
    test: TestFile = None,
    text: TextColumns = None,
    label: LabelColumns = None,
    separator: Separator = None,
    encoding: TextEncoding = None,
    worst: Annotated[
        int,
        typer.Option(
            help="Number of wrong predictions to show, the most confident first.", min=0, metavar="N"
        ),
    ] = 5,
    settings: Settings = None,
) -> None:
    """Evaluate a classifier or a committee on labelled texts.

    Shows accuracy with its 95 % interval, macro F1, calibration, confused labels and wrong predictions.

    Example: `tinylm evaluate model test.csv` or `tinylm evaluate bert1-agnews --task agnews`
    """
    from tinylm.export.runtime import load_predictor

    if (data is None) == (task is None):
        raise UserError("evaluate needs labelled texts or --task, one of them.")
    committee = load_predictor(model)
    text, label = columns_fitted_on(model, "text", text), columns_fitted_on(model, "label", label)
    if task is None:
        from tinylm.text.labelled import read_labelled

        assert data is not None
        separator = separator or record_of_fit(model).get("settings", {}).get("separator")
        labelled = read_labelled(data, text, label, separator, encoding)
        targets = _targets(committee, labelled)
        remark(labelled.in_words())
        _show(committee, labelled.texts, targets, labelled.source, worst)
        return
    from tinylm.infer.baselines import LINEAR_SVM, linear_svm_on

    loaded = load_task(task, labels, train_per_label, test_per_label, text, label[0], test)
    _check_task(model, committee, task, loaded)
    baseline = linear_svm_on(loaded)
    if baseline is None:
        remark("no linear SVM beside it: the training texts hold no words.")
    rival = (LINEAR_SVM, baseline.accuracy, baseline.macro_f1) if baseline else None
    _show(committee, loaded.test_texts, loaded.test_labels, loaded.name, worst, rival)


def _targets(committee: Predictor, labelled: Labelled) -> np.ndarray:
    """The labels of a table as numbers, in the form that the model predicts."""
    from tinylm.text.labelled import targets_of

    if labelled.several != committee.multi_label:
        found_labels = "several labels" if labelled.several else "one label"
        raise UserError(
            f"{labelled.source} has {found_labels} per text, which the model does not predict;"
            f" {'leave --separator out' if labelled.several else 'give --separator'}."
        )
    return targets_of(labelled, committee.label_names)


def _check_task(model: Path, committee: Predictor, task: str, loaded: Task) -> None:
    """Refuse a task with other labels, and say what to know about its rows."""
    from tinylm.system.files import read_record

    if loaded.label_names != committee.label_names:
        raise UserError(
            f"{model} knows the labels {', '.join(committee.label_names)}; task {task} has"
            f" {', '.join(loaded.label_names)}; both must be the same."
        )
    print_notes(loaded.unusable, loaded.notes)
    record = read_record(model)
    trained_on = {
        member["task"]["fingerprint"] for member in record.get("members", [record]) if "task" in member
    }
    if trained_on - {loaded.fingerprint}:
        remark("fine-tuned on another split: some of these test texts may be among the training texts.")


def _show(
    committee: Predictor,
    texts: Sequence[str],
    targets: np.ndarray,
    source: str,
    worst: int,
    rival: tuple[str, float, float] | None = None,
) -> None:
    """Evaluate, and print all figures; `rival` has a name, an accuracy and a macro F1."""
    from sklearn.metrics import f1_score

    from tinylm.infer.evaluation import evaluate
    from tinylm.report.tables import confusion_table

    found = evaluate(committee, texts, targets)
    table = Table("", "accuracy", "95 % interval", "macro F1", title=f"{found.texts:,} texts of {source}")
    logits = committee.member_logits(texts)
    if len(logits) > 1:
        for number, alone in enumerate(logits, 1):  # of several labels per text at probabilities of one half
            predicted = alone > 0 if committee.multi_label else alone.argmax(1)
            right = predicted == targets
            accuracy = (right.all(1) if committee.multi_label else right).mean()
            macro_f1 = f1_score(targets, predicted, average="macro", zero_division=0)
            table.add_row(f"member {number}", f"{accuracy:.3f}", "", f"{macro_f1:.3f}")
    low, high = found.interval
    name = "committee" if len(logits) > 1 else "classifier"
    table.add_row(name, f"{found.accuracy:.3f}", f"{low:.3f} to {high:.3f}", f"{found.macro_f1:.3f}")
    if rival is not None:
        table.add_row(rival[0], f"{rival[1]:.3f}", "", f"{rival[2]:.3f}")
    console.print(table)
    say(f"calibration error: {found.calibration_error:.3f} (expected, over 10 bins of confidence)")
    if found.rare_token_share is not None:
        say(f"tokens that were rare in pre-training: {found.rare_token_share:.1%}")
        say(f"texts of rare words, whose predictions are guesses: {found.low_coverage:,}")
    if found.confusion is not None:
        console.print(confusion_table(found.confusion, committee.label_names, console.width))
    for mistake in found.mistakes[:worst]:
        text = " ".join(mistake.text.split())[:100]
        say(f"{mistake.confidence:.2f} {mistake.prediction} instead of {mistake.truth}: {text}")
