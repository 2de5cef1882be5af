"""`tinylm paper`: the paper's tables and figures, run and reported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tinylm.cli.common import (
    Address,
    Command,
    Device,
    EngineName,
    Settings,
    console,
    need,
    remark,
    resumable,
    say,
)
from tinylm.errors import UserError

if TYPE_CHECKING:
    from tinylm.paper.results import Folder

paper = typer.Typer(
    help="Run the tables and figures of the paper again, and show its values beside ours.",
    no_args_is_help=True,
)

Preset = Annotated[
    str,
    typer.Option(
        help="Size of the experiments: smoke (a minute), cpu or laptop (hours), gpu (as in the paper, on the"
        " text of laptop), or paper.",
        metavar="NAME",
    ),
]
ResultsFolder = Annotated[
    str | None,
    typer.Option(
        "--results",
        help="Folder of the results, or a URL such as s3://bucket/path. By default results/paper/PRESET.",
        metavar="FOLDER",
    ),
]

Tables = Annotated[
    list[str],
    typer.Argument(
        help="Names of tables as in 'tinylm paper list', all, or YAML files of your own.", metavar="TABLE..."
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        help="Number of fine-tunings for each row. By default that of the preset.",
        min=2,
        max=100,
        metavar="N",
    ),
]
Rows = Annotated[str | None, typer.Option(help="Only these rows, such as 90000,5000.", metavar="NAMES")]
Panels = Annotated[
    str | None, typer.Option(help="Only these panels, such as a,b ('tinylm paper list').", metavar="NAMES")
]
Corpus = Annotated[
    str | None,
    typer.Option(
        help="Text for pre-training, as in 'tinylm corpus', in place of that of the preset.",
        metavar="CORPUS",
    ),
]

Workers = Annotated[
    int | None,
    typer.Option(
        help="Models that are trained at a time. By default one per core, or 4 on a GPU.",
        min=1,
        metavar="N",
    ),
]


@paper.command("list", cls=Command)
def list_command() -> None:
    """List the tables, figures and open questions that can be run.

    Example: `tinylm paper list`
    """
    from tinylm.paper.preset import preset_names
    from tinylm.paper.spec import load_table, table_names

    table = Table()
    table.add_column("name", no_wrap=True)
    for column in ("panels", "rows", "what it varies"):
        table.add_column(column, overflow="fold")
    for name in table_names():
        _, spec = load_table(name)
        panels = ", ".join(panel.name for panel in spec.panels if panel.name)
        rows = list(dict.fromkeys(row.name for panel in spec.panels for row in panel.rows))
        table.add_row(name, panels, ", ".join(rows) or f"those of {', '.join(spec.uses)}", spec.title)
    console.print(table)
    say(f"presets: {', '.join(preset_names())}")


@paper.command("run", cls=Command)
def run_command(
    tables: Tables,
    preset: Preset = "cpu",
    trials: Trials = None,
    rows: Rows = None,
    panels: Panels = None,
    tuned: Annotated[
        bool,
        typer.Option(
            "--tuned",
            help="Fine-tune with what 'tinylm paper tune' found. Tables are named table5-tuned and so on.",
        ),
    ] = False,
    results: ResultsFolder = None,
    corpus: Corpus = None,
    device: Device = "cpu",
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    settings: Settings = None,
) -> None:
    """Run the cells of tables that have no results yet.

    A run that was interrupted resumes when the same command is started again.

    Example: `tinylm paper run table5 --preset cpu`
    """
    from tinylm.ops.device import device_named
    from tinylm.paper.runner import plan_tables, run_tables
    from tinylm.system.paths import cache_folder
    from tinylm.system.ray_engine import engine_named

    folder = _chosen_folder(results, preset)
    where = device_named(device, here=engine == "local")
    prepared = plan_tables(
        tables,
        preset_name=preset,
        folder=folder,
        trials=trials,
        rows=_names(rows),
        panels=_names(panels),
        corpus=corpus,
        tuned=tuned,
    )
    # Behind a URL, all that jobs share lies there.
    shared = [folder, cache_folder()] if isinstance(folder, Path) else []
    with (
        resumable(folder if isinstance(folder, Path) else cache_folder()),
        engine_named(engine, address, shared) as running,
    ):
        summary = run_tables(prepared, where, workers, running)
    for sentence in [*summary.notes, *summary.failed]:
        remark(sentence)
    say(
        f"{summary.done} cells run, {summary.found} found, {len(summary.failed)} failed; results in {folder}."
        f" Now: tinylm paper report --results {folder}"
    )
    if summary.failed:
        raise UserError(f"{len(summary.failed)} cells failed; start the same command again to run them.")


@paper.command("tune", cls=Command)
def tune_command(
    tables: Tables,
    row: Annotated[
        list[str] | None,
        typer.Option(help="Search for this row alone. Can be given several times.", metavar="NAME"),
    ] = None,
    preset: Preset = "cpu",
    attempts: Annotated[
        int,
        typer.Option(
            help="Attempts for each row, with pre-training and without, earlier ones included.",
            min=1,
            metavar="N",
        ),
    ] = 20,
    results: ResultsFolder = None,
    corpus: Corpus = None,
    device: Device = "cpu",
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    settings: Settings = None,
) -> None:
    """Search the learning rate and weight decay of fine-tuning for each row, by validation rows.

    Test rows are not read. A search that was interrupted continues when the same command is started
    again. 'tinylm paper run TABLE --tuned' trains with what was found.

    Example: `tinylm paper tune table5 --row 40000 --preset cpu`
    """
    need("tune", "optuna")
    from tinylm.ops.device import device_named
    from tinylm.paper.runner import plan_tables
    from tinylm.paper.tuned import COMPARED, comparison
    from tinylm.paper.tuning import run_searches, searches
    from tinylm.system.paths import cache_folder
    from tinylm.system.ray_engine import engine_named

    folder = _chosen_folder(results, preset)
    if isinstance(folder, str):
        raise UserError(
            f"--results was {folder}; a search keeps its attempts in files under locks: give a folder."
        )
    where = device_named(device, here=engine == "local")
    prepared = plan_tables(tables, preset_name=preset, folder=folder, rows=row, corpus=corpus)
    with resumable(folder), engine_named(engine, address, [folder, cache_folder()]) as running:
        failed = run_searches(prepared, searches(prepared, row), attempts, where, workers, running)
    for sentence in failed:
        remark(sentence)
    for plan in prepared.plans:
        for panel in plan.panels:
            found = prepared.results.tuning(plan.name, panel.panel.name)
            if found is not None:
                grid = Table(*COMPARED, title=f"{plan.name} {panel.panel.title}")
                for line in comparison(found["rows"]):
                    grid.add_row(*line)
                console.print(grid)
    say(
        "Each entry: learning rate, weight decay: accuracy on the validation rows."
        f" Now: tinylm paper run {' '.join(tables)} --preset {preset} --tuned"
    )


@paper.command("plan", cls=Command)
def plan_command(
    tables: Tables,
    preset: Preset = "cpu",
    trials: Trials = None,
    rows: Rows = None,
    panels: Panels = None,
    results: ResultsFolder = None,
    corpus: Corpus = None,
    store: Annotated[
        bool,
        typer.Option("--store", help="Store the token counts in the results folder, for the report."),
    ] = False,
    settings: Settings = None,
) -> None:
    """Count the tokens of every W_S, and the cells that a run would train, without training.

    The results folder is only read, unless --store keeps the counts (W_S, T_W, T_C and T_M) there.

    Example: `tinylm paper plan all --preset laptop`
    """
    from tinylm.paper.cells import FinetuningCell, Pretraining
    from tinylm.paper.runner import plan_tables

    folder = _chosen_folder(results, preset)
    prepared = plan_tables(
        tables,
        preset_name=preset,
        folder=folder,
        trials=trials,
        rows=_names(rows),
        panels=_names(panels),
        corpus=corpus,
    )
    if store:
        prepared.store()
    grid = Table("cells", "to run", "hours of one core")
    kinds = {"pre-trainings": Pretraining, "fine-tunings": FinetuningCell}
    for name, kind in kinds.items():
        jobs = [job for job in prepared.jobs if isinstance(job, kind)]
        grid.add_row(name, f"{len(jobs):,}", _hours(prepared.hours(jobs)))
    baselines = len(prepared.jobs) - sum(isinstance(job, tuple(kinds.values())) for job in prepared.jobs)
    grid.add_row("baselines", f"{baselines:,}", "")
    console.print(grid)
    for plan in prepared.plans:
        for panel in plan.panels:
            for row in panel.rows:
                if row.note:
                    remark(f"{plan.name} {row.row.name}: {row.note}")
    say(
        f"{prepared.found} cells are found in {folder}. Hours are judged by the seconds of stored cells."
        f" Now: tinylm paper run {' '.join(tables)} --preset {preset}"
    )


def _hours(hours: float | None) -> str:
    return "no cell to judge by" if hours is None else f"{hours:.1f}"


@paper.command("report", cls=Command)
def report_command(
    results: Annotated[
        str,
        typer.Option(help="Folder of the results, or a URL such as s3://bucket/path.", metavar="FOLDER"),
    ] = "results/paper/cpu",
    out: Annotated[
        Path | None,
        typer.Option(help="Markdown file to write. By default report.md in that folder.", metavar="FILE"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="HTML file to write. By default report.html in that folder.", metavar="FILE"),
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(
            help="Folder of results at other sizes, such as results/paper/gpu, whose accuracies and gaps"
            " stand beside.",
            metavar="FOLDER",
        ),
    ] = None,
    settings: Settings = None,
) -> None:
    """Write a report of stored results: Markdown, plots, and one HTML page that needs no other file.

    No data set is needed.

    Example: `tinylm paper report --results results/paper/laptop --out docs/paper.md`
    """
    from tinylm.paper.report import write_report

    written = write_report(_folder(results), out, page, _folder(beside) if beside else None)
    for sentence in written.notes:
        remark(sentence)
    say(f"report in {written.markdown} and {written.page}")


def _names(given: str | None) -> list[str] | None:
    """Names that commas part."""
    return None if given is None else [name.strip() for name in given.split(",")]


def _folder(given: str) -> Folder:
    """A path, or a URL as it is."""
    path = given.removeprefix("file://")
    return path if "://" in path else Path(path)


def _chosen_folder(given: str | None, preset: str) -> Folder:
    """The folder that was given, or that of the preset."""
    from tinylm.paper.preset import load_preset

    if given:
        return _folder(given)
    load_preset(preset)  # an unknown one is no folder's name
    return Path("results") / "paper" / preset
