"""`tinylm finetune`: a pre-trained model becomes a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import (
    TRAINING,
    Device,
    Epochs,
    LabelColumn,
    Labels,
    Out,
    PerLabel,
    Seed,
    Settings,
    TaskName,
    TestFile,
    TextColumn,
    checkpoint_path,
    load_task,
    print_notes,
    remark,
    resumable,
    say,
    settings_of,
    task_facts,
)


def finetune_command(
    context: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(
            help="Folder of a pre-trained model, from 'tinylm pretrain' or of HuggingFace.", metavar="MODEL"
        ),
    ],
    task: TaskName,
    out: Out,
    from_scratch: Annotated[
        bool,
        typer.Option(
            help="Begin from random weights, with the architecture and the tokenizer of the model alone.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    labels: Labels = None,
    train_per_label: PerLabel = None,
    test_per_label: PerLabel = None,
    test: TestFile = None,
    text: TextColumn = "text",
    label: LabelColumn = "label",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="paper or fast. By default that of the pre-training.",
            metavar="NAME",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    epochs: Epochs = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Highest learning rate. By default that of the recipe.",
            min=1e-9,
            metavar="RATE",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    device: Device = "cpu",
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """Fine-tune a pre-trained model on labelled texts, and measure its accuracy on test texts.

    A run that was interrupted resumes when the same command is started again.

    Example: `tinylm finetune bert1 --task agnews --out bert1-agnews`
    """
    from tinylm.fit.budget import enough_epochs
    from tinylm.infer.classifier import Classifier
    from tinylm.model.huggingface import load_masked_language_model
    from tinylm.model.storage import WEIGHTS
    from tinylm.ops.device import device_named
    from tinylm.system.files import hash_files, new_folder, read_record, write_record
    from tinylm.text.prepare import held_out_titles
    from tinylm.text.tokenizer import load_tokenizer
    from tinylm.train.checkpoint import Checkpoint
    from tinylm.train.finetune import encode_task, finetune
    from tinylm.train.recipes import recipe_named

    where = device_named(device)
    with resumable(checkpoint_path(out)), new_folder(out) as folder:
        pretrained = load_masked_language_model(model)
        tokenizer = load_tokenizer(model)
        record = read_record(model)
        chosen = recipe_named(recipe or record.get("recipe", {}).get("name", "paper"))
        loaded = load_task(task, labels, train_per_label, test_per_label, text, label, test)
        if epochs is None:
            phase = chosen.finetune
            epochs = enough_epochs(phase.epochs, len(loaded.train_texts), phase.batch_size)
        chosen = chosen.with_epochs(finetune=epochs, learning_rate=learning_rate)
        print_notes(loaded.unusable, loaded.notes)
        unseen = held_out_titles(record.get("corpus", {}).get("corpus"))
        if not from_scratch and not loaded.test_titles <= unseen:
            remark(f"{model} may have seen test articles of {task} in pre-training, which flatters accuracy")
        pretraining = {key: record.get(key) for key in ("corpus", "seed", "recipe")}
        identity = {
            "recipe": chosen.model_dump(mode="json"),
            "model": pretrained.config.model_dump(mode="json"),
            "seed": seed,
            "task": task_facts(loaded),
            "pretraining": None if from_scratch else pretraining | {"weights": hash_files([model / WEIGHTS])},
        }
        checkpoint = Checkpoint(checkpoint_path(out), identity)
        result = finetune(
            encode_task(loaded, tokenizer, min(chosen.max_tokens, pretrained.config.max_tokens)),
            tokenizer,
            pretrained.config if from_scratch else pretrained,
            chosen,
            seed=seed,
            checkpoint=checkpoint,
            device=where,
        )
        figures = {"accuracy": result.accuracy, "best_epoch_accuracy": result.best_epoch_accuracy}
        Classifier.of(result.model, tokenizer, loaded.label_names).save(folder)
        facts = {"settings": settings_of(context), **identity, **figures}
        write_record(folder, "classifier", **facts, history=result.history)
    checkpoint.remove()
    say(
        f"accuracy {result.accuracy:.3f} after the last epoch (best epoch, chosen on test data:"
        f" {result.best_epoch_accuracy:.3f}); classifier in {out}"
    )
