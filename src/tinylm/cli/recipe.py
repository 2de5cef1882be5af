"""`tinylm recipe`: the experiments by which the recipe `fast` is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import Command, Device, Settings, remark, say

recipe = typer.Typer(
    help="Run the experiments by which the recipe fast is chosen, and write down what they found.",
    no_args_is_help=True,
)

ResultsFolder = Annotated[Path, typer.Option("--results", help="Folder of the results.", metavar="FOLDER")]
RESULTS = Path("results/recipe")


@recipe.command("run", cls=Command)
def run_command(
    questions: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of questions, as in docs/recipe.md. By default all.", metavar="QUESTION..."
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(help="How often each variant is trained, with seeds from 0.", min=1, metavar="NUMBER"),
    ] = 3,
    tasks: Annotated[
        str | None, typer.Option(help="Only these tasks, such as frdev,ag.", metavar="NAMES")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Models that are trained at a time. By default one per core.", min=1, metavar="N"),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Begin nothing after this time; the same command does the rest later.", metavar="NUMBER"
        ),
    ] = None,
    results: ResultsFolder = RESULTS,
    device: Device = "cpu",
    settings: Settings = None,
) -> None:
    """Train the variants of questions that have no results yet, and show their tables.

    Example: `tinylm recipe run pooling consistency --tasks frdev`
    """
    from tinylm.bench.recipe.questions import questions_named
    from tinylm.bench.recipe.report import table_of
    from tinylm.bench.recipe.runs import Runs, cells_of
    from tinylm.bench.recipe.schedule import run_cells
    from tinylm.ops.device import device_named
    from tinylm.report.document import block_markdown

    device_named(device)  # refused now where it is not present
    chosen = questions_named(questions or [], device)
    cells = cells_of(chosen, seeds, tasks.split(",") if tasks else [])
    summary = run_cells(cells, results, workers, minutes)
    found = Runs(results).by_settings()
    for question in chosen.values():
        if grid := table_of(question, found):
            say(f"{question.asks}\n{block_markdown(grid)}\n")
    for sentence in summary.failed:
        remark(sentence)
    say(f"{summary.done} done, {summary.found} found, {summary.left} left, {len(summary.failed)} failed")


@recipe.command("report", cls=Command)
def report_command(
    pages: Annotated[
        list[Path],
        typer.Argument(help="Markdown files that have places for tables.", metavar="PAGE..."),
    ],
    results: ResultsFolder = RESULTS,
) -> None:
    """Write the tables of Markdown files again, and the plots into the folder of the results.

    What whole fits reached is read from the records of `tinylm bench --suite accuracy`, in the folder bench
    beside that of the results.

    Example: `tinylm recipe report docs/recipe.md README.md`
    """
    from tinylm.bench.recipe.report import draw, refresh

    for page in pages:
        say(f"{page}: {', '.join(refresh(page, results)) or 'has no place for a table'}")
    draw(results)
