"""What the commands share: options, settings files, and how they speak.

Results go to standard output, remarks and progress to standard error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from tinylm.errors import UserError
from tinylm.system.plain_yaml import parse_yaml

if TYPE_CHECKING:
    from tinylm.text.coverage import Coverage
    from tinylm.text.tasks import Task

# Everything else is imported by the command that needs it: PyTorch takes a second
# to load, and `--help` should not wait for it.

console = Console()
remarks = Console(stderr=True)

# Options and keys of settings files as they were spelled earlier; both still work.
OLD_NAMES = {
    "text_column": "text",
    "label_column": "label",
    "test_file": "test",
    "linear": "tfidf_member",
    "no_linear": "no_tfidf_member",
}
# Parameters of the library that an option sets under another name.
OPTION_OF = OLD_NAMES | {"random_state": "seed", "tested": "test"}


class Command(TyperCommand):
    """A command that takes earlier spellings of options, and calls parameters what its options are called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line, earlier spellings of options included."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*map(_as_spelled_today, args[:end]), *args[end:]])

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error names `parameters` in backticks, the user knows them as options."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            options = {parameter.name: parameter.opts[0] for parameter in self.params}

            def option(match: re.Match[str]) -> str:
                return options.get(OPTION_OF.get(match[1], match[1]), match[0])

            raise UserError(re.sub(r"`(\w+)`", option, str(error))) from error


def _as_spelled_today(argument: str) -> str:
    option, equals, value = argument.partition("=")
    name = option.removeprefix("--").replace("-", "_")
    if option.startswith("--") and name in OLD_NAMES:
        return f"--{OLD_NAMES[name].replace('_', '-')}{equals}{value}"
    return argument


def read_settings(context: typer.Context, path: Path | None) -> Path | None:
    """Take the defaults of a command's options from a YAML file, or from an earlier output's record."""
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"settings file {path} cannot be read: {' '.join(str(error).split())}.") from error
    settings, _ = parse_yaml(text, f"settings file {path}")
    if isinstance(settings, dict) and "kind" in settings:  # a tinylm.json, whose settings are one entry
        settings = settings.get("settings")
    if not isinstance(settings, dict):
        raise UserError(f"settings file {path} holds no settings; expected lines like 'epochs: 10'.")
    known = {name for parameter in context.command.params if (name := parameter.name)} - {"settings", "help"}
    plain = {str(name).replace("-", "_"): value for name, value in settings.items()}
    given = {OLD_NAMES.get(name, name): value for name, value in plain.items()}
    repeated = {
        parameter.name for parameter in context.command.params if getattr(parameter, "multiple", False)
    }
    for name in repeated & given.keys():
        if isinstance(given[name], str):
            given[name] = [given[name]]
    for name in given:
        if name not in known:
            raise UserError(
                f"settings file {path}: '{name}' is unknown; there are {', '.join(sorted(known))}."
            )
    context.default_map = {name: value for name, value in given.items() if value is not None}
    return path


# Panels of `--help`, for commands with many options.
DATA, MODEL, TRAINING = "Labelled texts", "Model", "Training"

Settings = Annotated[
    Path | None,
    typer.Option(
        help="YAML file that sets any of these options, or the tinylm.json of an earlier output folder."
        " Options on the command line win.",
        metavar="FILE",
        is_eager=True,
        callback=read_settings,
    ),
]
ModelFolder = Annotated[
    Path,
    typer.Argument(help="Folder of a classifier, a committee or its ONNX export.", metavar="MODEL"),
]
Out = Annotated[Path, typer.Option(help="Output folder, which must not exist yet.", metavar="FOLDER")]
TextColumn = Annotated[str, typer.Option(help="Column that holds the text.", metavar="COLUMN")]
LabelColumn = Annotated[
    str, typer.Option(help="Column that holds the label.", metavar="COLUMN", rich_help_panel=DATA)
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option(
        help="Column that holds the text. If it is given several times, as in --text title --text body,"
        " the columns are joined.",
        metavar="COLUMN",
        rich_help_panel=DATA,
    ),
]
LabelColumns = Annotated[
    list[str] | None,
    typer.Option(
        help="Column that holds the label. If it is given several times, each column belongs to one label"
        " and holds 0 or 1.",
        metavar="COLUMN",
        rich_help_panel=DATA,
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(
        help="What separates several labels in one cell, such as ';'.", metavar="TEXT", rich_help_panel=DATA
    ),
]
TextEncoding = Annotated[
    str | None,
    typer.Option(
        help="Encoding of the file, such as cp1252. By default it is detected.",
        metavar="NAME",
        rich_help_panel=DATA,
    ),
]
Vocabulary = Annotated[
    int | None,
    typer.Option(help="Train a vocabulary of this many tokens on the corpus instead.", metavar="TOKENS"),
]
TaskName = Annotated[
    str,
    typer.Option(
        "--task",
        help="Labelled texts: fewrel, agnews, dbpedia, vital-topics, or a table of your own.",
        metavar="TASK",
    ),
]
OptionalTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Labelled texts whose tokens the selection follows: fewrel, agnews, dbpedia, vital-topics, or a"
        " table of your own.",
        metavar="TASK",
        rich_help_panel=DATA,
    ),
]
TestFile = Annotated[
    str | None,
    typer.Option(
        help="Table with the test texts. By default some of the rows are held out for testing.",
        metavar="TABLE",
        rich_help_panel=DATA,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Use only the labels with these numbers, such as 5,10,11. They count from 0, in alphabetical"
        " order (fewrel and tables of your own) or in the official order (agnews, dbpedia).",
        metavar="NUMBERS",
        rich_help_panel=DATA,
    ),
]
PerLabel = Annotated[
    int | None,
    typer.Option(
        help="Number of rows of each label. By default as many as in the paper, or all of a table.",
        min=1,
        metavar="ROWS",
        rich_help_panel=DATA,
    ),
]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="How to train: paper (as in the paper) or fast (the best model in a short time).",
        metavar="NAME",
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        help="Number of epochs. By default that of the recipe; fine-tuning on few texts takes more.",
        min=1,
        metavar="N",
        rich_help_panel=TRAINING,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="Where to train: cpu, cuda, or cuda:1 for the second GPU.",
        metavar="NAME",
        rich_help_panel=TRAINING,
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What does the work: local (processes of this machine) or ray (the nodes of a Ray cluster).",
        metavar="NAME",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="A running Ray: auto, HOST:PORT or ray://HOST:PORT. By default the one that runs on this machine"
        " is joined; if there is none, one is started for this run.",
        metavar="ADDRESS",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        help="Seed of all random numbers: weights, order of the texts, masks, dropout.",
        min=0,
        max=2**32 - 1,
        metavar="SEED",
    ),
]


def load_task(
    name: str,
    labels: str | None,
    train_per_label: int | None,
    test_per_label: int | None,
    text: str | Sequence[str],
    label: str,
    test: str | None,
) -> Task:
    from tinylm.text import tasks

    try:
        # A list in a settings file arrives here as "[5, 10, 11]".
        numbers = None if labels is None else [int(number) for number in labels.strip("[]").split(",")]
    except ValueError as error:
        raise UserError(f"--labels was {labels!r}; expected label numbers such as 5,10,11.") from error
    return tasks.load_task(
        name,
        labels=numbers,
        train_per_label=train_per_label,
        test_per_label=test_per_label,
        text_column=text,
        label_column=label,
        test_file=None if test is None else Path(test),
    )


def task_facts(task: Task) -> dict[str, Any]:
    """What a record tells of a task."""
    return {
        "name": task.name,
        "fingerprint": task.fingerprint,
        "train_texts": len(task.train_texts),
        "test_texts": len(task.test_texts),
        "unusable": task.unusable,
        "notes": task.notes,
    }


def record_of_fit(model: Path) -> dict[str, Any]:
    """The record of a model, or of the one that it was exported from."""
    from tinylm.system.files import read_record

    record = read_record(model)
    exported: dict[str, Any] = record.get("model", {}) if record.get("kind") == "onnx" else record
    return exported


def columns_fitted_on(model: Path, option: str, given: list[str] | None) -> list[str]:
    """Columns as given, or else those that the model was fitted on."""
    columns = given or record_of_fit(model).get("settings", {}).get(option) or option
    return [columns] if isinstance(columns, str) else list(columns)


def vocabulary_of(tokenizer: str | None, vocabulary: int | None) -> str | int | None:
    if tokenizer is not None and vocabulary is not None:
        raise UserError("--tokenizer and --vocabulary exclude each other: load one or train one.")
    return tokenizer if vocabulary is None else vocabulary


def checkpoint_path(folder: Path) -> Path:
    """Where a run that will end in `folder` keeps its checkpoint until then."""
    return folder.with_name(folder.name + ".checkpoint")


@contextmanager
def resumable(checkpoint: Path) -> Iterator[None]:
    """Say how to resume where the work is interrupted and left a checkpoint."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if checkpoint.exists():
            remark("Interrupted. Start the same command again to resume.")
        raise


def settings_of(context: typer.Context) -> dict[str, Any]:
    """All options that the output depends on, as the command runs, in a form that `--settings` takes."""
    elsewhere = ("settings", "engine", "address")  # where they stood, and where the work was done
    settings = {name: value for name, value in context.params.items() if name not in elsewhere}
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


def say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def remark(text: str) -> None:
    remarks.print(text, markup=False, highlight=False, soft_wrap=True)


def counts(unusable: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in unusable.items())


def print_notes(unusable: Mapping[str, int], notes: Sequence[str]) -> None:
    if unusable:
        remark(f"rows left out: {counts(unusable)}")
    for note in notes:
        remark(note)


def print_left_out(meta: dict[str, Any]) -> None:
    """Rows of a corpus that did not become paragraphs."""
    excluded = {"held out for testing": meta["excluded"]} if meta.get("excluded") else {}
    print_notes(meta.get("unusable", {}) | excluded, [])


def print_coverage(found: Coverage) -> None:
    from tinylm.report.tables import coverage_table

    console.print(coverage_table(found))


def need(extra: str, *packages: str) -> None:
    """Refuse to start without these packages, and name the extra that installs them."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}; install tinylm with its extra: tinylm[{extra}].")
