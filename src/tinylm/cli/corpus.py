"""`tinylm corpus`: choose W_S paragraphs and store their token ids."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tinylm.cli.common import (
    Address,
    EngineName,
    LabelColumn,
    Labels,
    OptionalTask,
    Out,
    PerLabel,
    Seed,
    Settings,
    TextColumn,
    Vocabulary,
    load_task,
    print_coverage,
    print_left_out,
    print_notes,
    say,
    settings_of,
    task_facts,
    vocabulary_of,
)
from tinylm.errors import UserError


def corpus_command(
    context: typer.Context,
    out: Out,
    corpus: Annotated[
        str,
        typer.Option(
            help="Text to choose from: vital (the built-in sample), wikipedia, hf:NAME (a data set of the"
            " HuggingFace hub), a file, a folder, a glob, or a token store.",
            metavar="CORPUS",
        ),
    ] = "vital",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="bert-base-uncased (the default), a vocab.txt, or a folder that holds one.", metavar="NAME"
        ),
    ] = None,
    vocabulary: Vocabulary = None,
    max_tokens: Annotated[
        int,
        typer.Option(
            help="Cut texts to this many tokens, \\[CLS] and \\[SEP] included.", min=3, metavar="TOKENS"
        ),
    ] = 128,
    select: Annotated[
        str,
        typer.Option(
            help="random; custom-made: only paragraphs all of whose tokens occur in the task; mismatched:"
            " paragraphs that avoid the tokens of the task.",
            metavar="WAY",
        ),
    ] = "random",
    size: Annotated[
        int | None,
        typer.Option(
            help="W_S, the number of paragraphs. By default all that qualify.", min=1, metavar="W_S"
        ),
    ] = None,
    missing: Annotated[
        int | None,
        typer.Option(
            help="T_M, the number of tokens of the task that a mismatched selection should lack.",
            min=0,
            metavar="T_M",
        ),
    ] = None,
    task: OptionalTask = None,
    labels: Labels = None,
    train_per_label: PerLabel = None,
    test_per_label: PerLabel = None,
    reduce_vocabulary: Annotated[
        bool, typer.Option(help="Reduce the vocabulary to the tokens of the selection and of the task.")
    ] = False,
    seed: Seed = 42,
    text: TextColumn = "text",
    label: LabelColumn = "label",
    engine: EngineName = "local",
    address: Address = None,
    settings: Settings = None,
) -> None:
    """Choose paragraphs for pre-training and store their token ids.

    Example: `tinylm corpus --corpus vital --select custom-made --task fewrel --labels 5,10,11 --out w_s`
    """
    import numpy as np

    from tinylm.system.files import check_new
    from tinylm.system.paths import cache_folder
    from tinylm.system.ray_engine import engine_named
    from tinylm.text.coverage import coverage, distinct_tokens
    from tinylm.text.prepare import prepare, save_selection
    from tinylm.text.select import custom_made_rows, mismatched_rows, random_rows
    from tinylm.text.store import open_store

    check_new(out)
    if select not in ("random", "custom-made", "mismatched"):
        raise UserError(f"--select was {select!r}; expected random, custom-made or mismatched.")
    if missing is not None and select != "mismatched":
        raise UserError("--missing belongs to --select mismatched.")
    if task is None and select != "random":
        raise UserError(f"a {select} selection follows the tokens of a task; name one with --task.")
    with engine_named(engine, address, [cache_folder()]) as running:
        source = prepare(
            corpus,
            vocabulary=vocabulary_of(tokenizer, vocabulary),
            max_tokens=max_tokens,
            text_column=text,
            engine=running,
        )
    facts: dict[str, Any] = {"settings": settings_of(context), "seed": seed}
    task_ids = None
    if task is not None:
        loaded = load_task(task, labels, train_per_label, test_per_label, text, label, None)
        print_notes(loaded.unusable, loaded.notes)
        facts["task"] = task_facts(loaded)
        task_ids = source.tokenizer.encode([*loaded.train_texts, *loaded.test_texts], max_tokens)
    vocab_size = len(source.tokenizer)
    in_task = distinct_tokens(task_ids, vocab_size) if task_ids is not None else np.zeros(vocab_size, bool)
    if select == "custom-made":
        rows = custom_made_rows(source.paragraphs, in_task, size, seed)
    elif select == "mismatched":
        if size is None:
            raise UserError("--select mismatched needs --size, the W_S to compare with.")
        rows = mismatched_rows(source.paragraphs, in_task, size, missing, seed)
    else:
        rows = random_rows(len(source.paragraphs), size or len(source.paragraphs), seed)
    save_selection(source, rows, out, facts, in_task if reduce_vocabulary else None)
    print_left_out(source.meta)
    if task_ids is not None:
        # As it was written, not a copy in memory; with a vocabulary of its own, it has other ids.
        chosen = source.paragraphs.take(rows) if reduce_vocabulary else open_store(out)[0]
        print_coverage(coverage(chosen, task_ids, vocab_size))
    say(f"W_S = {len(rows):,} paragraphs in {out}")
