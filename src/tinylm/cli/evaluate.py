"""`tinylm evaluate`: how good a classifier or a committee is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tinylm.cli.common import (
    LabelColumns,
    Labels,
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
    from tinylm.infer.predictor import Predictor
    from tinylm.text.labelled import Labelled
    from tinylm.text.tasks import Task


def evaluate_command(
    model: Annotated[Path, typer.Argument(help="Folder of a classifier, a committee or its ONNX export.")],
    data: Annotated[
        str | None, typer.Argument(help="Labelled texts, as for 'tinylm fit'; or --task.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="fewrel, agnews, dbpedia, vital-topics or a table to split.")
    ] = None,
    labels: Labels = None,
    train_per_label: PerLabel = None,
    test_per_label: PerLabel = None,
    test: TestFile = None,
    text: TextColumns = None,
    label: LabelColumns = None,
    separator: Separator = None,
    encoding: TextEncoding = None,
    worst: Annotated[int, typer.Option(help="Wrong answers on DATA to show, the surest first.", min=0)] = 5,
    settings: Settings = None,
) -> None:
    """Measure a classifier or a committee, on a table of your own or on a task with a linear SVM beside it.

    Example: `tinylm evaluate model test.csv` or `tinylm evaluate bert1-agnews --task agnews`
    """
    from tinylm.export.runtime import load_predictor

    if (data is None) == (task is None):
        raise UserError("evaluate needs labelled texts or --task, one of them.")
    committee = load_predictor(model)
    text, label = columns_fitted_on(model, "text", text), columns_fitted_on(model, "label", label)
    if data is not None:
        from tinylm.text.labelled import read_labelled

        separator = separator or record_of_fit(model).get("settings", {}).get("separator")
        _evaluate_table(committee, read_labelled(data, text, label, separator, encoding), worst)
        return
    assert task is not None
    loaded = load_task(task, labels, train_per_label, test_per_label, text, label[0], test)
    _evaluate_task(model, committee, task, loaded)


def _evaluate_table(committee: Predictor, labelled: Labelled, worst: int) -> None:
    from tinylm.infer.evaluation import evaluate
    from tinylm.report.tables import confusion_table
    from tinylm.text.labelled import targets_of

    if labelled.several != committee.multi_label:
        found_labels = "several labels" if labelled.several else "one label"
        raise UserError(
            f"{labelled.source} has {found_labels} per text, which the model has not;"
            f" {'leave --separator out' if labelled.several else 'give --separator'}."
        )
    targets = targets_of(labelled, committee.label_names)
    remark(labelled.in_words())
    found = evaluate(committee, labelled.texts, targets)
    low, high = found.interval
    table = Table("", "", title=f"{found.texts:,} texts of {labelled.source}", show_header=False)
    table.add_row("accuracy", f"{found.accuracy:.3f} (95 % interval {low:.3f} to {high:.3f})")
    table.add_row("macro F1", f"{found.macro_f1:.3f}")
    table.add_row("calibration error", f"{found.calibration_error:.3f} (expected, 10 bins of confidence)")
    if found.rare_token_share is not None:
        table.add_row("tokens that pre-training hardly met", f"{found.rare_token_share:.1%}")
        table.add_row("texts of low coverage (half of the tokens or more)", f"{found.low_coverage:,}")
    console.print(table)
    if found.confusion is not None:
        console.print(confusion_table(found.confusion, committee.label_names, console.width))
    for mistake in found.mistakes[:worst]:
        text = " ".join(mistake.text.split())[:100]
        say(f"{mistake.confidence:.2f} {mistake.answer} instead of {mistake.truth}: {text}")


def _evaluate_task(model: Path, committee: Predictor, task: str, loaded: Task) -> None:
    import numpy as np
    from sklearn.metrics import f1_score

    from tinylm.infer.baselines import LINEAR_SVM, linear_svm_on
    from tinylm.system.files import read_record
    from tinylm.train.finetune import accuracy_of

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
    fields = committee.member_logits(loaded.test_texts)
    total = np.sum(fields, axis=0)
    table = Table("", "accuracy", "macro F1", title=f"{loaded.name}: {len(loaded.test_texts):,} test texts")
    rows = [(f"member {i}", field) for i, field in enumerate(fields, 1)] if len(fields) > 1 else []
    for name, field in [*rows, ("committee" if rows else "classifier", total)]:
        score = f1_score(loaded.test_labels, field.argmax(1), average="macro")
        table.add_row(name, f"{accuracy_of(field, loaded.test_labels):.3f}", f"{score:.3f}")
    if baseline := linear_svm_on(loaded):
        table.add_row(LINEAR_SVM, f"{baseline.accuracy:.3f}", f"{baseline.macro_f1:.3f}")
    else:
        remark("no linear SVM beside it: the training texts hold no words.")
    console.print(table)
