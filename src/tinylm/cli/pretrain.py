"""`tinylm pretrain`: a BERT-n from scratch."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from tinylm.cli.common import (
    MODEL,
    Device,
    Epochs,
    Out,
    RecipeName,
    Seed,
    Settings,
    TextColumn,
    Vocabulary,
    checkpoint_path,
    print_left_out,
    resumable,
    say,
    settings_of,
    vocabulary_of,
)
from tinylm.errors import UserError


def pretrain_command(
    context: typer.Context,
    out: Out,
    corpus: Annotated[
        str,
        typer.Option(
            help="Text to train on, as in 'tinylm corpus', whose output is one too.", metavar="CORPUS"
        ),
    ] = "vital",
    size: Annotated[
        int | None,
        typer.Option(help="Use only this many paragraphs (W_S), drawn at random.", min=1, metavar="W_S"),
    ] = None,
    layers: Annotated[
        int,
        typer.Option(
            help="Number of transformer blocks, n of BERT-n.", min=1, metavar="N", rich_help_panel=MODEL
        ),
    ] = 6,
    heads: Annotated[
        int | None,
        typer.Option(
            help="Number of attention heads; 12 by default.", min=1, metavar="N", rich_help_panel=MODEL
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            help="Width of the transformer, 64 for each head; instead of --heads.",
            metavar="WIDTH",
            rich_help_panel=MODEL,
        ),
    ] = None,
    convolution: Annotated[
        str | None,
        typer.Option(
            help="Convolutions in front of the transformer: LAYERSxCHANNELSxKERNEL, such as 2x64x3x3.",
            metavar="SHAPE",
            rich_help_panel=MODEL,
        ),
    ] = None,
    recipe: RecipeName = "paper",
    epochs: Epochs = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="As in 'tinylm corpus'. By default that of the recipe.",
            metavar="NAME",
        ),
    ] = None,
    vocabulary: Vocabulary = None,
    text: TextColumn = "text",
    device: Device = "cpu",
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """Pre-train a BERT-n from scratch with masked language modelling.

    With the recipe `fast`, the encoder then learns to predict from half of a text which words the other half
    has. A run that was interrupted resumes when the same command is started again. Started by `torchrun`,
    several processes share every batch.

    Example: `tinylm pretrain --corpus vital --size 5000 --layers 1 --heads 2 --recipe fast --out bert1`
    """
    from tinylm.model.huggingface import save_model
    from tinylm.ops.device import device_named
    from tinylm.system.files import new_folder, write_record
    from tinylm.text.coverage import token_counts, write_token_counts
    from tinylm.text.prepare import prepare
    from tinylm.text.select import random_rows
    from tinylm.text.store import is_store
    from tinylm.train.bag_of_words import predict_bags
    from tinylm.train.checkpoint import Checkpoint
    from tinylm.train.pretrain import pretrain
    from tinylm.train.recipes import recipe_named
    from tinylm.train.together import joined_processes

    chosen, where = recipe_named(recipe).with_epochs(pretrain=epochs), device_named(device)
    wanted = vocabulary_of(tokenizer, vocabulary)
    if wanted is None and not is_store(Path(corpus)):
        wanted = chosen.vocabulary
    shape = {"layers": layers, "heads": _heads(heads, width), "convolution": _convolution(convolution)}
    with joined_processes() as together, ExitStack() as stack:
        first = together is None or together.first  # it alone writes, files and to the screen
        if first:  # now, so that hours of training never end at a folder that is refused
            stack.enter_context(resumable(checkpoint_path(out)))
            folder = stack.enter_context(new_folder(out))
        source = prepare(corpus, vocabulary=wanted, max_tokens=chosen.max_tokens, text_column=text)
        paragraphs = source.paragraphs
        if size is not None:
            paragraphs = paragraphs.take(random_rows(len(paragraphs), size))
        config = chosen.model_config_for(len(source.tokenizer), **shape)
        identity = {
            "recipe": chosen.model_dump(mode="json"),
            "model": config.model_dump(mode="json"),
            "seed": seed,
            "corpus": source.meta | {"w_s": len(paragraphs), "tokens_per_epoch": int(paragraphs.offsets[-1])},
        }
        path = checkpoint_path(out)
        checkpoint = Checkpoint(path, identity)
        of_bags = Checkpoint(path.with_name(path.name + ".bags"), identity)
        if first:
            print_left_out(source.meta)
        trained, history = pretrain(
            paragraphs,
            source.tokenizer,
            config,
            chosen,
            seed=seed,
            checkpoint=checkpoint,
            device=where,
            together=together,
        )
        if not first:
            return
        bags = []
        if chosen.bag_of_words is not None:
            bags = predict_bags(
                paragraphs, source.tokenizer, trained, chosen, seed=seed, checkpoint=of_bags, device=where
            )
        save_model(trained, folder)
        source.tokenizer.save(folder, config.max_tokens)
        write_token_counts(folder, token_counts(paragraphs, len(source.tokenizer)))
        facts = identity | {"history": history, "bag_of_words": bags}
        write_record(folder, "pretrained", settings=settings_of(context), **facts)
    for one in (checkpoint, of_bags):
        one.remove()
    losses = f"{history[0]['loss']:.3f} to {history[-1]['loss']:.3f}"
    say(f"W_S = {len(paragraphs):,}, loss {losses}; model in {out}")


def _heads(heads: int | None, width: int | None) -> int:
    from tinylm.model.config import heads_of_width

    if width is None:
        return heads or 12  # as in the paper
    if heads not in (None, heads_of_width(width)):
        raise UserError(
            f"--width was {width} and --heads {heads}; expected a width of 64 x heads, or one of them."
        )
    return heads_of_width(width)


def _convolution(text: str | None) -> dict[str, Any] | None:
    """`2x64x3x3` to two layers of 64 channels with 3x3 kernels."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", text):
        raise UserError(f"--convolution was {text!r}; expected LAYERSxCHANNELSxKERNEL such as 2x64x3x3.")
    layers, channels, tokens, dimensions = (int(part) for part in text.split("x"))
    return {"layers": layers, "channels": channels, "kernel": (tokens, dimensions)}
