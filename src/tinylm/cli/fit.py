"""`tinylm fit`: from a table of labelled texts to a folder with model, card and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import (
    DATA,
    MODEL,
    TRAINING,
    LabelColumns,
    Out,
    RecipeName,
    Seed,
    Separator,
    Settings,
    TestFile,
    TextColumns,
    TextEncoding,
    checkpoint_path,
    console,
    remark,
    resumable,
    say,
    settings_of,
)


def fit_command(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            help="Labelled texts: a table (CSV, JSON, Excel, parquet, ...), hf:NAME (a data set of the"
            " HuggingFace hub), or - for standard input.",
            metavar="DATA",
        ),
    ],
    out: Out,
    text: TextColumns = None,
    label: LabelColumns = None,
    separator: Separator = None,
    encoding: TextEncoding = None,
    test: TestFile = None,
    test_share: Annotated[
        float,
        typer.Option(
            help="Share of the rows that is held out for testing.",
            min=0.01,
            max=0.9,
            metavar="SHARE",
            rich_help_panel=DATA,
        ),
    ] = 0.2,
    budget: Annotated[
        str,
        typer.Option(
            help="Time for everything, such as 90s, 10min or 1h. With none, the epochs of the recipe are"
            " trained, however long that takes, and the same command gives the same model again.",
            metavar="TIME",
        ),
    ] = "5min",
    corpus: Annotated[
        str,
        typer.Option(
            help="Text for pre-training beside your own: vital (the built-in sample), wikipedia, hf:NAME, a"
            " file, a folder, or none.",
            metavar="CORPUS",
            rich_help_panel=TRAINING,
        ),
    ] = "vital",
    pretrained: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a model from 'tinylm pretrain' (or a BERT of HuggingFace) that all encoders begin"
            " with. Then nothing is pre-trained, and all of the time is for fine-tuning.",
            metavar="FOLDER",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            help="More texts of your own, without labels: a file, hf:NAME or -. Pre-training reads them. If"
            " they are at least as many as those with labels, the committee labels some of them and learns"
            " from that.",
            metavar="TEXTS",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    recipe: RecipeName = "fast",
    members: Annotated[
        int,
        typer.Option(help="Number of encoders in the committee.", min=1, metavar="N", rich_help_panel=MODEL),
    ] = 2,
    tfidf_member: Annotated[
        bool,
        typer.Option(
            help="Add a member without an encoder: a linear SVM on TF-IDF of words and characters.",
            rich_help_panel=MODEL,
        ),
    ] = True,
    student: Annotated[
        bool,
        typer.Option(
            help="Let the committee teach one encoder, within the budget, which then predicts alone.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    max_tokens: Annotated[
        int, typer.Option(help="Longer texts are cut there; more tokens take longer.", min=3)
    ] = 128,
    long_texts: Annotated[
        str,
        typer.Option(help="What is read of longer texts: head, or head-tail (beginning and end)."),
    ] = "head",
    max_size: Annotated[
        str | None,
        typer.Option(
            help="Largest size of the model on disk, such as 10MB.", metavar="SIZE", rich_help_panel=MODEL
        ),
    ] = None,
    balanced: Annotated[
        bool,
        typer.Option(help="Give rare labels as much weight as frequent ones.", rich_help_panel=TRAINING),
    ] = True,
    compare: Annotated[
        bool,
        typer.Option(
            help="Also train without pre-training, within the budget, and show the difference in the report.",
            rich_help_panel=TRAINING,
        ),
    ] = True,
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """Train a classifier on labelled texts within a given time.

    The output folder holds the model, a model card and a report (report.html). A fit that was interrupted
    resumes when the same command is started again.

    Example: `tinylm fit train.csv --text text --label label --out model --budget 10min`
    """
    from tinylm.fit.estimator import TinyTextClassifier
    from tinylm.fit.resume import under_way
    from tinylm.system.files import check_new, new_folder
    from tinylm.text.labelled import read_labelled, read_texts
    from tinylm.workflows.fit import fit_and_report

    texts, labels = text or ["text"], label or ["label"]
    check_new(out)
    here = settings_of(context)
    kept = checkpoint_path(out)
    with resumable(kept), under_way(kept, here) as unfinished, new_folder(out) as folder:
        labelled = read_labelled(data, texts, labels, separator, encoding)
        tested = read_labelled(test, texts, labels, separator, encoding) if test else None
        classifier = TinyTextClassifier(
            corpus=None if corpus == "none" else corpus,
            pretrained=pretrained,
            unlabelled=read_texts(unlabelled, texts, encoding) if unlabelled else None,
            recipe=recipe,
            members=members,
            tfidf_member=tfidf_member,
            student=student,
            max_tokens=max_tokens,
            long_texts=long_texts,
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
            settings=here,
            unfinished=unfinished,
            tell=remark,
        )
    for line in results.data_warnings:
        remark(line)
    console.print(results.table())
    say(
        f"{results.seconds / 60:.1f} minutes. Report: {out / 'report.html'}. Now try:\n"
        f'  tinylm predict {out} "a text of your own"'
    )
