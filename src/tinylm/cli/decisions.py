"""What trained models are for: evaluate, combine, predict."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tinylm.cli.common import (
    LabelColumn,
    Labels,
    Out,
    PerLabel,
    Settings,
    TaskName,
    TestFile,
    TextColumn,
    console,
    counts,
    load_task,
    print_notes,
    remark,
    say,
    settings_of,
)
from tinylm.errors import UserError


def evaluate_command(
    model: Annotated[Path, typer.Argument(help="Folder of a classifier or a committee.")],
    task: TaskName,
    labels: Labels = None,
    train_per_label: PerLabel = None,
    test_per_label: PerLabel = None,
    test_file: TestFile = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    settings: Settings = None,
) -> None:
    """Measure a classifier or a committee on a task's test texts, TF-IDF beside it.

    Example: `tinylm evaluate bert1-agnews --task agnews`
    """
    import numpy as np
    from sklearn.metrics import f1_score

    from tinylm.baselines import tfidf_accuracy
    from tinylm.committee import load_committee
    from tinylm.folders import read_record
    from tinylm.train.finetune import accuracy_of

    committee = load_committee(model)
    loaded = load_task(task, labels, train_per_label, test_per_label, text_column, label_column, test_file)
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
    try:
        table.add_row("TF-IDF + logistic regression", f"{tfidf_accuracy(loaded):.3f}", "")
    except ValueError:  # scikit-learn finds no word in texts of emoji or single letters
        remark("no TF-IDF beside it: the training texts hold no words.")
    console.print(table)


def committee_command(
    context: typer.Context,
    members: Annotated[list[Path], typer.Argument(help="Folders of fine-tuned classifiers.")],
    out: Out,
    settings: Settings = None,
) -> None:
    """Combine classifiers into a soft committee: the sum of their logits decides.

    Example: `tinylm committee bert1-a bert1-b bert1-c --out committee`
    """
    from tinylm.classifier import Classifier
    from tinylm.committee import Committee
    from tinylm.folders import new_folder, read_record, write_record

    committee = Committee([Classifier.load(folder) for folder in members])
    with new_folder(out) as folder:
        committee.save(folder)
        records = [read_record(member) for member in members]
        write_record(folder, "committee", settings=settings_of(context), members=records)
    say(f"committee of {len(members)} members in {out}")


def predict_command(
    model: Annotated[Path, typer.Argument(help="Folder of a classifier or a committee.")],
    text: Annotated[str, typer.Argument(help="A text, or a file of texts (txt, CSV, TSV, JSONL, parquet).")],
    out: Annotated[Path | None, typer.Option(help="CSV or JSONL file for the answers.")] = None,
    text_column: TextColumn = "text",
    settings: Settings = None,
) -> None:
    """Label a text or all texts of a file.

    Example: `tinylm predict committee "The striker scored twice in the final."`
    """
    from tinylm.committee import load_committee

    if out is not None and out.suffix not in (".csv", ".jsonl"):
        raise UserError(f"--out was {out}; expected a name that ends in .csv or .jsonl.")
    if out is not None and (out.exists() or not out.parent.is_dir()):
        raise UserError(f"--out was {out}; expected a new file in a folder that exists.")
    committee = load_committee(model)
    texts = _texts_of(text, text_column)
    probabilities = committee.probabilities(list(texts.values()))
    answers = [
        {
            "row": row,
            "label": committee.label_names[of_labels.argmax()],
            "probability": round(float(of_labels.max()), 4),
            "text": line,
        }
        for (row, line), of_labels in zip(texts.items(), probabilities, strict=True)
    ]
    if out is not None:
        _write_answers(out, answers)
        say(f"{len(answers):,} answers in {out}")
        return
    for answer in answers:
        print(f"{answer['label']}\t{answer['probability']:.3f}\t{' '.join(str(answer['text']).split())[:80]}")


def _texts_of(text: str, text_column: str) -> dict[int, str]:
    """The texts that `predict` is asked about, by their row in the file."""
    from tinylm.text.tables import file_format, read_rows, why_unusable

    if reason := why_unusable(text):
        raise UserError(f"the text to predict cannot be used ({reason}); expected words.")
    path = Path(text)
    try:
        exists = path.exists()
    except OSError:  # a long text is no valid file name
        exists = False
    if not exists:
        if file_format(Path(text[-200:])) and " " not in text:
            raise UserError(f"file {text} does not exist.")
        return {1: text}
    if path.is_dir():
        raise UserError(f"{text} is a folder; expected a text or a file of texts.")
    texts: dict[int, str] = {}
    unusable: Counter[str] = Counter()
    for row, values in read_rows(path, [text_column]):
        if reason := why_unusable(values.get(text_column)):
            unusable[reason] += 1
        else:
            texts[row] = values[text_column]
    if not texts:
        raise UserError(f"file {text} holds no usable text ({counts(unusable) or 'no rows'}).")
    print_notes(unusable, [])
    return texts


def _write_answers(path: Path, answers: Sequence[dict[str, Any]]) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            if path.suffix == ".jsonl":
                file.writelines(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
            else:
                writer = csv.DictWriter(file, list(answers[0]))
                writer.writeheader()
                writer.writerows(answers)
        partial.replace(path)
    finally:  # of a full disk, say
        partial.unlink(missing_ok=True)
