"""`tinylm fit`: from a table of labelled texts to a folder with model, card and report."""

from __future__ import annotations

from typing import Annotated

import typer

from tinylm.cli.common import (
    LabelColumns,
    Out,
    Seed,
    Separator,
    Settings,
    TestFile,
    TextColumns,
    TextEncoding,
    console,
    remark,
    say,
    settings_of,
)


def fit_command(
    context: typer.Context,
    data: Annotated[
        str, typer.Argument(help="Labelled texts: a table (CSV, JSON, Excel, parquet, ...), hf:NAME or -.")
    ],
    out: Out,
    text: TextColumns = None,
    label: LabelColumns = None,
    separator: Separator = None,
    encoding: TextEncoding = None,
    test: TestFile = None,
    test_share: Annotated[
        float, typer.Option(help="Share of the rows that is split off for testing.", min=0.01, max=0.9)
    ] = 0.2,
    budget: Annotated[
        str,
        typer.Option(
            help="Time for all of it, such as 90s, 10min or 1h; or none: the recipe's epochs, which take as"
            " long as they take and give the same model again."
        ),
    ] = "5min",
    corpus: Annotated[
        str, typer.Option(help="Text for pre-training: vital, wikipedia, hf:NAME, a file or folder, or none.")
    ] = "vital",
    unlabelled: Annotated[
        str | None, typer.Option(help="More text of your own for pre-training: a file, hf:NAME or -.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="fast or paper.")] = "fast",
    members: Annotated[int, typer.Option(help="Encoders of the committee.", min=1)] = 3,
    tfidf_member: Annotated[
        bool, typer.Option(help="One member more: logistic regression on TF-IDF of the same tokens.")
    ] = True,
    max_size: Annotated[
        str | None, typer.Option(help="Of the model, such as 10MB: the most accurate that fits.")
    ] = None,
    balanced: Annotated[bool, typer.Option(help="Weigh labels so that rare ones count as much.")] = True,
    compare: Annotated[
        bool, typer.Option(help="Also train without pre-training, within the budget, for the report.")
    ] = True,
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """Fit a classifier to labelled texts; the folder also holds a report and a model card.

    Example: `tinylm fit train.csv --text text --label label --out model --budget 10min`
    """
    from tinylm.fit.estimator import TinyTextClassifier
    from tinylm.system.files import new_folder
    from tinylm.text.labelled import read_labelled, read_texts
    from tinylm.workflows.fit import fit_and_report

    texts, labels = text or ["text"], label or ["label"]
    with new_folder(out) as folder:
        labelled = read_labelled(data, texts, labels, separator, encoding)
        tested = read_labelled(test, texts, labels, separator, encoding) if test else None
        classifier = TinyTextClassifier(
            corpus=None if corpus == "none" else corpus,
            unlabelled=read_texts(unlabelled, texts, encoding) if unlabelled else None,
            recipe=recipe,
            members=members,
            tfidf_member=tfidf_member,
            max_size=max_size,
            budget=None if budget == "none" else budget,
            class_weight="balanced" if balanced else None,
            random_state=seed,
        )
        results = fit_and_report(
            classifier,
            labelled,
            tested,
            test_share,
            folder,
            name=out.name,
            sources=(data, test),
            compare=compare,
            settings=settings_of(context),
            tell=remark,
        )
    for line in results.data_warnings:
        remark(line)
    console.print(results.table())
    say(
        f"{results.seconds / 60:.1f} minutes. Report: {out / 'report.html'}. Now try:\n"
        f'  tinylm predict {out} "a text of your own"'
    )
