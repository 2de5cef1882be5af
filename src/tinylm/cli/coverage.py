"""`tinylm coverage`: count the tokens of a corpus and a task."""

from __future__ import annotations

from typing import Annotated

import typer

from tinylm.cli.common import (
    LabelColumn,
    Labels,
    PerLabel,
    Settings,
    TaskName,
    TextColumn,
    load_task,
    print_coverage,
)


def coverage_command(
    corpus: Annotated[
        str,
        typer.Argument(
            help="Token store, or a corpus as in 'tinylm corpus'.", metavar="CORPUS", show_default=False
        ),
    ],
    task: TaskName,
    tokenizer: Annotated[str | None, typer.Option(help="As in 'tinylm corpus'.", metavar="NAME")] = None,
    labels: Labels = None,
    train_per_label: PerLabel = None,
    test_per_label: PerLabel = None,
    text: TextColumn = "text",
    label: LabelColumn = "label",
    settings: Settings = None,
) -> None:
    """Count the tokens that a corpus and a task have in common.

    W_S is the number of paragraphs, T_W the number of distinct tokens in them, T_C that of the task, and
    T_M the number of tokens of the task that the corpus lacks.

    Example: `tinylm coverage vital --task fewrel`
    """
    from tinylm.text.coverage import coverage
    from tinylm.text.prepare import prepare

    source = prepare(corpus, vocabulary=tokenizer, text_column=text)
    loaded = load_task(task, labels, train_per_label, test_per_label, text, label, None)
    texts = [*loaded.train_texts, *loaded.test_texts]
    print_coverage(coverage(source.paragraphs, source.tokenizer.encode(texts), len(source.tokenizer)))
