"""The command line: `tinylm COMMAND --help` explains each command with an example.

A command reads its settings from the command line or from a YAML file
(`--settings FILE`, keys as the options are called), does its work through the
library, and writes an output folder that holds the settings again. Results go to
standard output, remarks and progress to standard error. A mistake of the user's ends
a command with one sentence and exit code 2, and leaves nothing behind.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer
from rich.text import Text

from tinylm.cli.bench import bench_command
from tinylm.cli.committee import committee_command
from tinylm.cli.common import Command, remark, remarks, say
from tinylm.cli.corpus import corpus_command
from tinylm.cli.coverage import coverage_command
from tinylm.cli.demo import demo_command
from tinylm.cli.distill import distill_command
from tinylm.cli.evaluate import evaluate_command
from tinylm.cli.export import export_command
from tinylm.cli.finetune import finetune_command
from tinylm.cli.fit import fit_command
from tinylm.cli.paper import paper
from tinylm.cli.predict import predict_command
from tinylm.cli.pretrain import pretrain_command
from tinylm.cli.recipe import recipe
from tinylm.cli.serve import serve_command
from tinylm.cli.verify import verify_command
from tinylm.errors import MachineWarning, UserError
from tinylm.system.interrupts import ended_by_signals

# In the order in which `--help` lists them.
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo_command,
    "fit": fit_command,
    "corpus": corpus_command,
    "coverage": coverage_command,
    "pretrain": pretrain_command,
    "finetune": finetune_command,
    "committee": committee_command,
    "distill": distill_command,
    "evaluate": evaluate_command,
    "predict": predict_command,
    "export": export_command,
    "serve": serve_command,
    "verify": verify_command,
    "bench": bench_command,
}

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from tinylm import __version__

        say(f"tinylm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Tiny language models: pre-train, fine-tune and combine tiny BERT encoders."""


for name, command in COMMANDS.items():
    app.command(name, cls=Command)(command)
app.add_typer(paper, name="paper")
app.add_typer(recipe, name="recipe")


def _nobody_reads() -> bool:
    """Whether the program that read our output, such as `head`, has ended."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _text_with_a_dash(error: typer.TyperException) -> str | None:
    """What to say if the option that does not exist was meant as a text, such as "-5 degrees"."""
    option = getattr(error, "option_name", None)
    for argument in sys.argv[1:]:
        if option and argument.startswith(option) and not re.fullmatch(r"--?[a-zA-Z][\w-]*(=.*)?", argument):
            return f"{argument!r} begins with a dash, so it was read as an option; put -- in front of a text."
    return None


def _show_warning(
    otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any
) -> None:
    """Ours are sentences for the user, who does not want to know which line of code they come from."""
    if issubclass(category, MachineWarning):
        remark(str(message))
    else:
        otherwise(message, category, *place)


def main() -> None:
    """Run the command line; a mistake of the user's becomes one sentence and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the console cannot show becomes a question mark
            stream.reconfigure(errors="replace")
    # Without a network, the hub's client would surround that sentence with warnings; so would
    # matplotlib without a home folder.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        with ended_by_signals(), warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
            sys.stdout.flush()
            sys.exit(code)
    except UserError as error:
        message = str(error)
    except typer.TyperException as error:  # an unknown option, a missing argument
        message = _text_with_a_dash(error) or error.format_message()
    except OSError as error:  # a folder without permission, a full disk
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(1)
        name = error.filename or "standard output, or a file,"
        message = f"{name} cannot be read or written: {error.strerror or error}."
    # What libraries say within our sentences may have several lines.
    text = Text.assemble(("Error: ", "bold red"), " ".join(message.split()))
    remarks.print(text, soft_wrap=True)
    sys.exit(2)
