"""The command line: `tinylm COMMAND --help` explains each command with an example.

A command reads its settings from the command line or from a YAML file
(`--settings FILE`, keys as the options are called), does its work through the
library, and writes an output folder that holds the settings again. Results go to
standard output, remarks and progress to standard error. A mistake of the user's ends
a command with one sentence and exit code 2, and leaves nothing behind.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinylm.errors import UserError

if TYPE_CHECKING:
    from tinylm.text.coverage import Coverage
    from tinylm.text.tasks import Task

# Everything else is imported by the command that needs it: PyTorch takes a second
# to load, and `--help` should not wait for it.

app = typer.Typer(
    help="Tiny language models: pre-train, fine-tune and combine tiny BERT encoders.",
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console()
remarks = Console(stderr=True)


def read_settings(context: typer.Context, path: Path | None) -> Path | None:
    """Take the defaults of a command's options from a YAML file, or from an earlier output's record."""
    if path is None:
        return None
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"settings file {path} cannot be read: {' '.join(str(error).split())}.") from error
    if isinstance(settings, dict) and "kind" in settings:  # a tinylm.json, whose settings are one entry
        settings = settings.get("settings")
    if not isinstance(settings, dict):
        raise UserError(f"settings file {path} holds no settings; expected lines like 'epochs: 10'.")
    known = {name for parameter in context.command.params if (name := parameter.name)} - {"settings", "help"}
    given = {str(name).replace("-", "_"): value for name, value in settings.items()}
    for name in given:
        if name not in known:
            raise UserError(
                f"settings file {path}: '{name}' is unknown; there are {', '.join(sorted(known))}."
            )
    context.default_map = {name: value for name, value in given.items() if value is not None}
    return path


Settings = Annotated[
    Path | None,
    typer.Option(
        help="YAML file with any of these options, or the tinylm.json of an earlier output.",
        is_eager=True,
        callback=read_settings,
    ),
]
Out = Annotated[Path, typer.Option(help="Output folder; it must be new.")]
TextColumn = Annotated[str, typer.Option(help="Column that holds the text.")]
LabelColumn = Annotated[str, typer.Option(help="Column that holds the label.")]
TaskName = Annotated[
    str, typer.Option("--task", help="fewrel, agnews, dbpedia, vital-topics, or a table of labelled texts.")
]
OptionalTask = Annotated[str | None, typer.Option("--task", help="Task whose tokens count, as in finetune.")]
TestFile = Annotated[Path | None, typer.Option(help="Table with the test rows; else 20 % are split off.")]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Only these labels, as in 5,10,11: counted from 0 in alphabetical order (fewrel, own tables)"
        " or in the official one (agnews, dbpedia)."
    ),
]
PerLabel = Annotated[int | None, typer.Option(help="Rows of each label; default as in the paper.", min=1)]
RecipeName = Annotated[str, typer.Option("--recipe", help="paper (faithful) or fast (best per second).")]
Seed = Annotated[
    int, typer.Option(help="Determines weights, order, masks and dropout.", min=0, max=2**32 - 1)
]


def main() -> None:
    """Run the command line; mistakes of the user's become one sentence and exit code 2."""
    # Without a network, the hub's client would surround that sentence with warnings.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except UserError as error:
        message = str(error)
    except typer.TyperException as error:  # an unknown option, a missing argument
        message = error.format_message()
    except OSError as error:  # a folder without permission, a full disk
        message = f"{error.filename or 'a file'} cannot be read or written: {error.strerror or error}."
    # What libraries say within our sentences may have several lines.
    text = Text.assemble(("Error: ", "bold red"), " ".join(message.split()))
    remarks.print(text, soft_wrap=True)
    sys.exit(2)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the classifier.")] = Path("demo"),
    seed: Seed = 0,
) -> None:
    """Run the whole story on the embedded corpus in a few minutes.

    Example: `tinylm demo`
    """
    from tinylm.demo import run_demo

    run_demo(out, seed)


@app.command()
def corpus(
    context: typer.Context,
    out: Out,
    corpus: Annotated[
        str, typer.Option(help="vital, wikipedia, hf:NAME, a file, folder or glob, or a token store.")
    ] = "vital",
    tokenizer: Annotated[
        str | None, typer.Option(help="bert-base-uncased, or a vocab.txt, or its folder.")
    ] = None,
    vocabulary: Annotated[
        int | None, typer.Option(help="Train a vocabulary of this size on the corpus instead.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Cut texts there, [CLS] and [SEP] included.", min=3)] = 128,
    select: Annotated[str, typer.Option(help="random, custom-made or mismatched.")] = "random",
    size: Annotated[int | None, typer.Option(help="W_S; by default all that qualify.", min=1)] = None,
    missing: Annotated[int | None, typer.Option(help="T_M wanted of a mismatched selection.", min=0)] = None,
    task: OptionalTask = None,
    labels: Labels = None,
    train_per_label: PerLabel = None,
    test_per_label: PerLabel = None,
    reduce_vocabulary: Annotated[
        bool, typer.Option(help="Keep only the tokens of the selection and of the task.")
    ] = False,
    seed: Seed = 42,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    settings: Settings = None,
) -> None:
    """Choose W_S paragraphs and store their token ids.

    Example: `tinylm corpus --corpus vital --select custom-made --task fewrel --labels 5,10,11 --out w_s`
    """
    import numpy as np

    from tinylm.folders import check_new
    from tinylm.text.coverage import coverage, distinct_tokens
    from tinylm.text.prepare import prepare, save_selection
    from tinylm.text.select import custom_made_rows, mismatched_rows, random_rows

    check_new(out)
    if select not in ("random", "custom-made", "mismatched"):
        raise UserError(f"--select was {select!r}; expected random, custom-made or mismatched.")
    if missing is not None and select != "mismatched":
        raise UserError("--missing belongs to --select mismatched.")
    if task is None and select != "random":
        raise UserError(f"a {select} selection follows the tokens of a task; name one with --task.")
    source = prepare(
        corpus, vocabulary=_vocabulary(tokenizer, vocabulary), max_tokens=max_tokens, text_column=text_column
    )
    facts: dict[str, Any] = {"settings": _settings_of(context), "seed": seed}
    task_ids = None
    if task is not None:
        loaded = _load_task(task, labels, train_per_label, test_per_label, text_column, label_column, None)
        _print_notes(loaded.unusable, loaded.notes)
        facts["task"] = _task_facts(loaded)
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
    _print_left_out(source.meta)
    if task_ids is not None:
        _print_coverage(coverage(source.paragraphs.take(rows), task_ids, vocab_size))
    _say(f"W_S = {len(rows):,} paragraphs in {out}")


@app.command("coverage")
def coverage_command(
    corpus: Annotated[str, typer.Argument(help="A token store, or a corpus as in 'tinylm corpus'.")],
    task: TaskName,
    tokenizer: Annotated[str | None, typer.Option(help="As in 'tinylm corpus'.")] = None,
    labels: Labels = None,
    train_per_label: PerLabel = None,
    test_per_label: PerLabel = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    settings: Settings = None,
) -> None:
    """Count the tokens of a corpus and a task: W_S, T_W, T_C, T_M and their overlap.

    Example: `tinylm coverage vital --task fewrel`
    """
    from tinylm.text.coverage import coverage
    from tinylm.text.prepare import prepare

    source = prepare(corpus, vocabulary=tokenizer, text_column=text_column)
    loaded = _load_task(task, labels, train_per_label, test_per_label, text_column, label_column, None)
    texts = [*loaded.train_texts, *loaded.test_texts]
    _print_coverage(coverage(source.paragraphs, source.tokenizer.encode(texts), len(source.tokenizer)))


@app.command("pretrain")
def pretrain_command(
    context: typer.Context,
    out: Out,
    corpus: Annotated[str, typer.Option(help="As in 'tinylm corpus'; a token store as it is.")] = "vital",
    size: Annotated[int | None, typer.Option(help="W_S, drawn at random with seed 42.", min=1)] = None,
    layers: Annotated[int, typer.Option(help="Transformer blocks, n of BERT-n.", min=1)] = 6,
    heads: Annotated[int | None, typer.Option(help="Attention heads; default 12.", min=1)] = None,
    width: Annotated[
        int | None, typer.Option(help="Transformer width, 64 x heads; instead of --heads.")
    ] = None,
    convolution: Annotated[
        str | None,
        typer.Option(help="Convolutions in front: LAYERSxCHANNELSxKERNEL, as in 2x64x3x3 (Table 8)."),
    ] = None,
    recipe: RecipeName = "paper",
    epochs: Annotated[int | None, typer.Option(help="Default: the recipe's.", min=1)] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="As in 'tinylm corpus'; default: the recipe's.")
    ] = None,
    vocabulary: Annotated[int | None, typer.Option(help="As in 'tinylm corpus'.")] = None,
    text_column: TextColumn = "text",
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """Pre-train a BERT-n from scratch; a killed run goes on when started again.

    Example: `tinylm pretrain --corpus vital --size 5000 --layers 1 --heads 2 --recipe fast --out bert1`
    """
    from tinylm.folders import new_folder, write_record
    from tinylm.model.huggingface import save_model
    from tinylm.text.prepare import prepare
    from tinylm.text.select import random_rows
    from tinylm.text.store import is_store
    from tinylm.train.checkpoint import Checkpoint
    from tinylm.train.pretrain import pretrain
    from tinylm.train.recipes import recipe_named

    chosen = recipe_named(recipe).with_epochs(pretrain=epochs)
    wanted = _vocabulary(tokenizer, vocabulary)
    if wanted is None and not is_store(Path(corpus)):
        wanted = chosen.vocabulary
    shape = {"layers": layers, "heads": _heads(heads, width), "convolution": _convolution(convolution)}
    with new_folder(out) as folder:  # now, so that hours of training never end at a folder that is refused
        source = prepare(corpus, vocabulary=wanted, max_tokens=chosen.max_tokens, text_column=text_column)
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
        checkpoint = Checkpoint(_checkpoint_path(out), identity)
        _print_left_out(source.meta)
        trained, history = pretrain(
            paragraphs, source.tokenizer, config, chosen, seed=seed, checkpoint=checkpoint
        )
        save_model(trained, folder)
        source.tokenizer.save(folder, config.max_tokens)
        write_record(folder, "pretrained", settings=_settings_of(context), **identity, history=history)
    checkpoint.remove()
    losses = f"{history[0]['loss']:.3f} to {history[-1]['loss']:.3f}"
    _say(f"W_S = {len(paragraphs):,}, loss {losses}; model in {out}")


@app.command("finetune")
def finetune_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Folder of a pre-trained model, ours or HuggingFace's.")],
    task: TaskName,
    out: Out,
    from_scratch: Annotated[
        bool, typer.Option(help="Same architecture and tokenizer, but random weights: no pre-training.")
    ] = False,
    labels: Labels = None,
    train_per_label: PerLabel = None,
    test_per_label: PerLabel = None,
    test_file: TestFile = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    recipe: Annotated[str | None, typer.Option(help="Default: that of the pre-training.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: the recipe's.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the recipe's.", min=1e-9)] = None,
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """Fine-tune a pre-trained model on labelled texts.

    Example: `tinylm finetune bert1 --task agnews --out bert1-agnews`
    """
    from tinylm.classifier import Classifier
    from tinylm.folders import new_folder, read_record, write_record
    from tinylm.model.huggingface import WEIGHTS, load_masked_language_model
    from tinylm.text.corpus import hash_files
    from tinylm.text.prepare import held_out_titles
    from tinylm.text.tokenizer import load_tokenizer
    from tinylm.train.checkpoint import Checkpoint
    from tinylm.train.finetune import encode_task, finetune
    from tinylm.train.recipes import recipe_named

    with new_folder(out) as folder:
        pretrained = load_masked_language_model(model)
        tokenizer = load_tokenizer(model)
        record = read_record(model)
        chosen = recipe_named(recipe or record.get("recipe", {}).get("name", "paper"))
        chosen = chosen.with_epochs(finetune=epochs, learning_rate=learning_rate)
        loaded = _load_task(
            task, labels, train_per_label, test_per_label, text_column, label_column, test_file
        )
        _print_notes(loaded.unusable, loaded.notes)
        unseen = held_out_titles(record.get("corpus", {}).get("corpus"))
        if not from_scratch and not loaded.test_titles <= unseen:
            _remark(f"{model} may have seen test articles of {task} in pre-training, which flatters accuracy")
        pretraining = {key: record.get(key) for key in ("corpus", "seed", "recipe")}
        identity = {
            "recipe": chosen.model_dump(mode="json"),
            "model": pretrained.config.model_dump(mode="json"),
            "seed": seed,
            "task": _task_facts(loaded),
            "pretraining": None if from_scratch else pretraining | {"weights": hash_files([model / WEIGHTS])},
        }
        checkpoint = Checkpoint(_checkpoint_path(out), identity)
        result = finetune(
            encode_task(loaded, tokenizer, min(chosen.max_tokens, pretrained.config.max_tokens)),
            tokenizer,
            pretrained.config if from_scratch else pretrained,
            chosen,
            seed=seed,
            checkpoint=checkpoint,
        )
        figures = {"accuracy": result.accuracy, "best_epoch_accuracy": result.best_epoch_accuracy}
        Classifier(result.model, tokenizer, loaded.label_names).save(folder)
        facts = {"settings": _settings_of(context), **identity, **figures}
        write_record(folder, "classifier", **facts, history=result.history)
    checkpoint.remove()
    _say(
        f"accuracy {result.accuracy:.3f} after the last epoch (best epoch, chosen on test data:"
        f" {result.best_epoch_accuracy:.3f}); classifier in {out}"
    )


@app.command("evaluate")
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
    loaded = _load_task(task, labels, train_per_label, test_per_label, text_column, label_column, test_file)
    if loaded.label_names != committee.label_names:
        raise UserError(
            f"{model} knows the labels {', '.join(committee.label_names)}; task {task} has"
            f" {', '.join(loaded.label_names)}; both must be the same."
        )
    _print_notes(loaded.unusable, loaded.notes)
    record = read_record(model)
    trained_on = {
        member["task"]["fingerprint"] for member in record.get("members", [record]) if "task" in member
    }
    if trained_on - {loaded.fingerprint}:
        _remark("fine-tuned on another split: some of these test texts may be among the training texts.")
    fields = [member.logits(loaded.test_texts) for member in committee.members]
    total = np.sum(fields, axis=0)
    table = Table("", "accuracy", "macro F1", title=f"{loaded.name}: {len(loaded.test_texts):,} test texts")
    rows = [(f"member {i}", field) for i, field in enumerate(fields, 1)] if len(fields) > 1 else []
    for name, field in [*rows, ("committee" if rows else "classifier", total)]:
        score = f1_score(loaded.test_labels, field.argmax(1), average="macro")
        table.add_row(name, f"{accuracy_of(field, loaded.test_labels):.3f}", f"{score:.3f}")
    try:
        table.add_row("TF-IDF + logistic regression", f"{tfidf_accuracy(loaded):.3f}", "")
    except ValueError:  # scikit-learn finds no word in texts of emoji or single letters
        _remark("no TF-IDF beside it: the training texts hold no words.")
    console.print(table)


@app.command("committee")
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
        write_record(folder, "committee", settings=_settings_of(context), members=records)
    _say(f"committee of {len(members)} members in {out}")


@app.command("predict")
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
        _say(f"{len(answers):,} answers in {out}")
        return
    for answer in answers:
        print(f"{answer['label']}\t{answer['probability']:.3f}\t{' '.join(str(answer['text']).split())[:80]}")


@app.command("bench")
def bench_command(
    suite: Annotated[str, typer.Option(help="cpu (training), inference or gpu.")],
    json_file: Annotated[Path, typer.Option("--json", help="File for the results.")],
    rounds: Annotated[int, typer.Option(help="How often each side works, in turn.", min=1)] = 3,
    only: Annotated[str | None, typer.Option(help="Only these cases, as in mlm-bert1,mlm-small.")] = None,
) -> None:
    """Measure the library beside the authors' way on this machine.

    Example: `tinylm bench --suite inference --json inference.json`
    """
    if suite == "gpu":
        import torch

        if torch.cuda.is_available():
            _say("suite gpu: there is a CUDA GPU, but this suite is not written yet.")
        else:
            _say("suite gpu: there is no CUDA GPU here, nothing was measured.")
        return
    if find_spec("transformers") is None:
        raise UserError("the benchmarks need transformers; install tinylm with its extra: tinylm[dev].")
    from tinylm.bench.measure import table, write_json
    from tinylm.bench.suites import run_suite

    if not json_file.parent.is_dir():
        raise UserError(f"--json was {json_file}; expected a file in a folder that exists.")
    results = run_suite(suite, rounds, only.split(",") if only else ())
    write_json(json_file, results)
    console.print(table(results))
    for result in results:
        low, high = result.spread
        facts = ", ".join(f"{name} {fact}" for name, fact in result.details.items())
        _say(f"{result.name}: ratio {low:.1f} to {high:.1f}, {facts}")


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
        raise UserError(f"file {text} holds no usable text ({_counts(unusable) or 'no rows'}).")
    _print_notes(unusable, [])
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


def _load_task(
    name: str,
    labels: str | None,
    train_per_label: int | None,
    test_per_label: int | None,
    text_column: str,
    label_column: str,
    test_file: Path | None,
) -> Task:
    from tinylm.text.tasks import load_task

    try:
        # A list in a settings file arrives here as "[5, 10, 11]".
        numbers = None if labels is None else [int(number) for number in labels.strip("[]").split(",")]
    except ValueError as error:
        raise UserError(f"--labels was {labels!r}; expected label numbers such as 5,10,11.") from error
    return load_task(
        name,
        labels=numbers,
        train_per_label=train_per_label,
        test_per_label=test_per_label,
        text_column=text_column,
        label_column=label_column,
        test_file=test_file,
    )


def _task_facts(task: Task) -> dict[str, Any]:
    """What a record tells of a task."""
    return {
        "name": task.name,
        "fingerprint": task.fingerprint,
        "train_texts": len(task.train_texts),
        "test_texts": len(task.test_texts),
        "unusable": task.unusable,
        "notes": task.notes,
    }


def _vocabulary(tokenizer: str | None, vocabulary: int | None) -> str | int | None:
    if tokenizer is not None and vocabulary is not None:
        raise UserError("--tokenizer and --vocabulary exclude each other: load one or train one.")
    return tokenizer if vocabulary is None else vocabulary


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


def _checkpoint_path(folder: Path) -> Path:
    """Where a run that will end in `folder` keeps its checkpoint until then."""
    return folder.with_name(folder.name + ".checkpoint")


def _settings_of(context: typer.Context) -> dict[str, Any]:
    """All options of the command as it runs, in a form that `--settings` takes."""
    settings = {name: value for name, value in context.params.items() if name != "settings"}
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _remark(text: str) -> None:
    remarks.print(text, markup=False, highlight=False, soft_wrap=True)


def _counts(unusable: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in unusable.items())


def _print_notes(unusable: Mapping[str, int], notes: Sequence[str]) -> None:
    if unusable:
        _remark(f"rows left out: {_counts(unusable)}")
    for note in notes:
        _remark(note)


def _print_left_out(meta: dict[str, Any]) -> None:
    """Rows of a corpus that did not become paragraphs."""
    excluded = {"held out for testing": meta["excluded"]} if meta.get("excluded") else {}
    _print_notes(meta.get("unusable", {}) | excluded, [])


def _print_coverage(found: Coverage) -> None:
    table = Table(title="Tokens of W_S and of the classification data")
    for column in ("W_S", "T_W", "T_C", "T_M", "of T_W not in T_C", "frequency-weighted overlap"):
        table.add_column(column, justify="right")
    counts = (found.paragraphs, found.t_w, found.t_c, found.t_m, found.absent_from_task)
    table.add_row(*(f"{count:,}" for count in counts), f"{found.weighted_overlap:.4f}")
    console.print(table)
