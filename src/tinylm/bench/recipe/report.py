"""What the finished cells say: a table for each question, and accuracy against seconds.

Pages also show what whole fits reach, from the records of the suite `accuracy`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tinylm.bench.accuracy import FIT, PAPER
from tinylm.bench.recipe.data import TASKS
from tinylm.bench.recipe.fits import (
    FASTTEXT,
    LINEAR,
    NAMES,
    compared_table,
    fits_table,
    minutes_table,
    points,
    pretrained_table,
    read_fits,
    rows_table,
    students_table,
    unlabelled_table,
)
from tinylm.bench.recipe.questions import QUESTIONS, Question, questions_named
from tinylm.bench.recipe.runs import Runs, settings_of
from tinylm.errors import UserError
from tinylm.paper.records import Content
from tinylm.paper.statistics import interval
from tinylm.report.document import Grid, block_markdown
from tinylm.report.format import number, signed
from tinylm.report.plots import fits_plot, seconds_plot, write_svg
from tinylm.system.files import key_of, write_text

PLOT, FITS_PLOT = "seconds.svg", "fits.svg"
SERIES = {
    FIT: "tinylm fit",
    PAPER: "one BERT-1 by the recipe paper",
    LINEAR: "linear SVM",
    FASTTEXT: "fastText",
}
# What is written stands between such comments, so that it can be written again without the words around it.
PLACE = re.compile(r"(<!-- ((?:recipe|fits): \w+) -->\n).*?(<!-- end -->)", re.DOTALL)
FITS_FOLDER = "bench"  # of the records of the suite `accuracy`, beside the folder of the cells
FITS_TABLES = {
    "all": fits_table,
    "students": students_table,
    "minutes": minutes_table,
    "rows": rows_table,
    "pretrained": pretrained_table,
    "compared": compared_table,
    "unlabelled": unlabelled_table,
}
DEVICES = ("cpu", "cuda")
ENCODER, TOGETHER = "accuracy", "with_linear"  # as cells have them
Results = Mapping[str, Mapping[int, Content]]  # as `Runs.by_settings` gives them
Cells = dict[tuple[str, int], Content]  # by task and seed
Found = dict[str, Cells]  # by variant


def found_cells(question: Question, results: Results) -> Found:
    """The finished cells of each variant that has any, by task and seed."""
    found: Found = {}
    for name, variant in question.variants.items():
        for task in TASKS:
            for seed, cell in results.get(key_of(settings_of(variant, task)), {}).items():
                found.setdefault(name, {})[task, seed] = cell
    return found


def table_of(question: Question, results: Results) -> Grid | None:
    """A line for each task and variant that has been run, and for the means over the tasks where the base has
    them all; None where there are no two variants to compare."""
    found = found_cells(question, results)
    if len(found) < 2:
        return None
    base = found.get(next(iter(question.variants)), {})
    run = {task for cells in found.values() for task, _ in cells}
    groups = [[task] for task in TASKS if task in run]
    if len(groups) > 1 and run == {task for task, _ in base}:
        groups.append([task for (task,) in groups])
    rows = [row for tasks in groups for row in _rows(tasks, found, base)]
    head = ["task", "variant", "seeds", "seconds", "MLM loss", "encoder", "with the linear model"]
    return Grid(head, rows)


def _rows(tasks: Sequence[str], found: Found, base: Cells) -> list[list[str]]:
    """The variants on one task or, where there are several, their means over them; last the linear model."""
    title = tasks[0] if len(tasks) == 1 else "mean"
    other = _by_seed(tasks, base)
    rows = []
    for name, cells in found.items():
        own = _by_seed(tasks, cells)
        if own:
            compared = [_compared(own, {} if cells is base else other, key) for key in (ENCODER, TOGETHER)]
            rows.append([title, name, str(len(own)), *_pretraining(own), *compared])
    rivals = {task: cell["linear"] for cells in found.values() for (task, _), cell in cells.items()}
    accuracy, seconds = (np.mean([rivals[task][key] for task in tasks]) for key in ("accuracy", "seconds"))
    rows.append([title, "strong linear model", "", f"{seconds:.0f}", "", "", number(float(accuracy))])
    return rows


def _by_seed(tasks: Sequence[str], cells: Cells) -> dict[int, list[Content]]:
    """Of each seed that has all of the tasks, their cells."""
    seeds = sorted({seed for _, seed in cells})
    return {
        seed: [cells[task, seed] for task in tasks]
        for seed in seeds
        if all((task, seed) in cells for task in tasks)
    }


def _pretraining(own: Mapping[int, list[Content]]) -> list[str]:
    """Seconds of pre-training and of fine-tuning, and the loss of masked language modelling."""
    cells = [cell for each in own.values() for cell in each]
    before = np.mean([cell["pretraining"]["seconds"] for cell in cells])
    losses = [cell["pretraining"]["loss"] for cell in cells if "loss" in cell["pretraining"]]
    seconds = f"{before:.0f} + {np.mean([cell['seconds'] for cell in cells]):.0f}"
    return [seconds, f"{np.mean(losses):.2f}" if losses else ""]


def _compared(own: Mapping[int, list[Content]], base: Mapping[int, list[Content]], key: str) -> str:
    """Mean over tasks and seeds, with its deviation or its difference to the base at equal seeds."""
    means, others = (
        {seed: float(np.mean([cell[key] for cell in cells])) for seed, cells in each.items()}
        for each in (own, base)
    )
    values = list(means.values())
    mean = number(float(np.mean(values)))
    if not others:
        return mean + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")
    differences = [means[seed] - others[seed] for seed in means if seed in others]
    if not differences:
        return mean
    spread = interval(differences)
    width = "" if spread is None else f" ± {spread.high - spread.mean:.3f}"
    return f"{mean} ({signed(float(np.mean(differences)))}{width})"


def questions_markdown(results: Results) -> str:
    """A sentence that names the questions without results, and a section for each of the others."""
    parts, without = [], []
    for name, question in QUESTIONS.items():
        tables = {
            device: grid
            for device in DEVICES
            if (grid := table_of(questions_named([name], device)[name], results))
        }
        if tables:
            parts.append(f"### {question.asks}")
        else:
            without.append(f"`{name}` ({question.asks})")
        for device, grid in tables.items():
            option = "" if device == "cpu" else f" --device {device}"
            parts += [f"`tinylm recipe run {name}{option}`", block_markdown(grid)]
    if without:
        parts.insert(0, f"Without results so far: {', '.join(without)}.")
    return "\n\n".join(parts)


def refresh(page: Path, folder: Path) -> list[str]:
    """Write the tables of a Markdown page again.

    Args:
        page: between `<!-- recipe: questions -->` and `<!-- end -->` stands a section for each question,
            between `<!-- fits: TABLE -->` and `<!-- end -->` one of FITS_TABLES.
        folder: of the results.

    Returns:
        The names of the places that were written.

    Raises:
        UserError: there is no such page, or it names a table that there is not.
    """
    if not page.is_file():
        raise UserError(f"{page} does not exist; expected a Markdown file that has places for tables.")
    fits = read_fits(folder.parent / FITS_FOLDER)
    known = {"recipe: questions", *(f"fits: {table}" for table in FITS_TABLES)}
    names = []

    def written(place: re.Match[str]) -> str:
        before, name, after = place.groups()
        if name not in known:
            raise UserError(f"{page}: '{name}' is unknown; there are {', '.join(sorted(known))}.")
        names.append(name)
        if name.startswith("recipe"):
            shown = questions_markdown(Runs(folder).by_settings())
        else:
            grid = FITS_TABLES[name.removeprefix("fits: ")](fits)
            shown = block_markdown(grid) if grid.rows else "Not measured yet."
        return f"{before}\n{shown}\n\n{after}"

    write_text(page, PLACE.sub(written, page.read_text(encoding="utf-8")))
    return names


def draw(folder: Path) -> None:
    """Draw accuracy against seconds into the folder of the results: of its cells, and of whole fits."""
    variants, linear = variant_points(Runs(folder).by_settings())
    if variants:
        write_svg(seconds_plot(variants, linear), folder / PLOT)
    fits = points(read_fits(folder.parent / FITS_FOLDER))
    if fits:
        named = {
            NAMES[task][0]: {SERIES[name]: found for name, found in series.items()}
            for task, series in fits.items()
        }
        write_svg(fits_plot(named, [SERIES[LINEAR], SERIES[FASTTEXT]]), folder / FITS_PLOT)


def variant_points(
    results: Results,
) -> tuple[dict[str, list[tuple[float, float, float]]], dict[str, float]]:
    """What `seconds_plot` takes, of the variants that were trained on a processor."""
    panels: dict[str, list[tuple[float, float, float]]] = {}
    linear: dict[str, float] = {}
    for question in QUESTIONS.values():
        for cells in found_cells(question, results).values():
            for task in dict.fromkeys(task for task, _ in cells):
                mine = [cell for (name, _), cell in cells.items() if name == task]
                seconds = np.mean([cell["pretraining"]["seconds"] + cell["seconds"] for cell in mine])
                alone, together = (np.mean([cell[key] for cell in mine]) for key in (ENCODER, TOGETHER))
                panels.setdefault(task, []).append((float(seconds), float(alone), float(together)))
                linear[task] = mine[0]["linear"]["accuracy"]
    return {task: sorted(set(panels[task])) for task in TASKS if task in panels}, linear
