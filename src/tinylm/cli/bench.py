"""`tinylm bench`: speed beside the reference, and the questions of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import Device, Settings, console, need, remark, say, settings_of
from tinylm.errors import UserError


def bench_command(
    context: typer.Context,
    suite: Annotated[
        str,
        typer.Option(
            help="What to measure. train-cpu, train-gpu: training. infer-cpu: prediction. ablation: what each"
            " trick of training brings. corpus, select: preparing a corpus. int8: what products in int8"
            " change in training. accuracy: what a fit reaches in a time, beside linear models. recipe: the"
            " questions of docs/recipe.md, a question where others have a case and a seed where they have a"
            " round.",
            metavar="NAME",
        ),
    ],
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Also write the results to this file. accuracy: after each split, and splits that the file"
            " holds are not measured again.",
            metavar="FILE",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="How often each side is measured, in turn.", min=1, metavar="NUMBER")
    ] = 3,
    only: Annotated[
        str | None,
        typer.Option(help="Measure only these cases, such as mlm-bert1,mlm-small.", metavar="NAMES"),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="recipe: only these tasks, such as frdev,ag.", metavar="NAMES")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="recipe: trainings at a time; as many as there are cores.", min=1, metavar="NUMBER"
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="recipe: begin nothing after so many; a later call does the rest.", metavar="NUMBER"
        ),
    ] = None,
    results: Annotated[
        Path, typer.Option(help="recipe: where what is done is found and added.", metavar="FOLDER")
    ] = Path("results/recipe"),
    report: Annotated[
        Path | None,
        typer.Option(
            help="recipe: run nothing, write the tables in this Markdown file again.", metavar="FILE"
        ),
    ] = None,
    device: Device = "cpu",
    settings: Settings = None,
) -> None:
    """Measure the speed of the library beside that of a reference, on this machine.

    docs/performance.md explains the suites and their references, docs/recipe.md the suite recipe.

    Example: `tinylm bench --suite infer-cpu --json infer-cpu.json`
    """
    names = only.split(",") if only else []
    if suite == "recipe":
        run_recipe(names, rounds, tasks.split(",") if tasks else [], results, report, jobs, minutes, device)
        return
    if json_file is not None and not json_file.parent.is_dir():
        raise UserError(f"--json was {json_file}; expected a file in a folder that exists.")
    need("dev", "transformers")
    from tinylm.bench.measure import table
    from tinylm.bench.suites import can_run, run_suite

    if not can_run(suite):
        say(f"Nothing was measured: suite {suite} needs a CUDA GPU, and there is none here.")
        return
    machine, measured = run_suite(suite, rounds, names, json_file, settings_of(context))
    console.print(table(measured))
    say(", ".join(f"{name} {fact}" for name, fact in machine.facts().items()))
    for result in measured:
        low, high = result.spread
        facts = "".join(f", {name} {fact}" for name, fact in result.details.items())
        say(f"{result.name}: ratio {low:.2f} to {high:.2f}{facts}")


def run_recipe(
    names: list[str],
    seeds: int,
    tasks: list[str],
    folder: Path,
    page: Path | None,
    jobs: int | None,
    minutes: float | None,
    device: str,
) -> None:
    """Answer questions of the laboratory, or write a page of its tables again."""
    from tinylm.bench.recipe.questions import questions_named
    from tinylm.bench.recipe.report import refresh, tables_of
    from tinylm.bench.recipe.runs import Runs, cells_of
    from tinylm.bench.recipe.schedule import run_cells
    from tinylm.ops.device import device_named
    from tinylm.report.document import block_markdown

    if page is not None:
        say(f"{page}: tables of {', '.join(refresh(page, folder)) or 'no question'}")
        return
    device_named(device)  # refused now where it is not present
    questions = questions_named(names, device)
    summary = run_cells(cells_of(questions, seeds, tasks), folder, jobs, minutes)
    results = Runs(folder).by_settings()
    for question in questions.values():
        for title, grid in tables_of(question, results).items():
            say(f"{question.asks} Accuracy of {title}:\n{block_markdown(grid)}\n")
    for sentence in summary.failed:
        remark(sentence)
    say(f"{summary.done} done, {summary.found} found, {summary.left} left, {len(summary.failed)} failed")
