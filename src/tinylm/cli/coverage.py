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
    corpus: Annotated[str, typer.Argument(help="A token store, or a corpus as in 'tinylm corpus'.")],
    task: TaskName,
    tokenizer: Annotated[str | None, typer.Option(help="As in 'tinylm corpus'.")] = None,
    labels: Labels = None,
    train_per_label: PerLabel = None,
    test_per_label: PerLabel = None,
    text: TextColumn = "text",
    label: LabelColumn = "label",
    settings: Settings = None,
) -> None:
    """Count the tokens of a corpus and a task: W_S, T_W, T_C, T_M and their overlap.

    Example: `tinylm coverage vital --task fewrel`
    """
    from tinylm.text.coverage import coverage
    from tinylm.text.prepare import prepare

    source = prepare(corpus, vocabulary=tokenizer, text_column=text)
    loaded = load_task(task, labels, train_per_label, test_per_label, text, label, None)
    texts = [*loaded.train_texts, *loaded.test_texts]
    print_coverage(coverage(source.paragraphs, source.tokenizer.encode(texts), len(source.tokenizer)))
