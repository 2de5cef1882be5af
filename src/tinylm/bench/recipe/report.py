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
    fits_table,
    minutes_table,
    points,
    read_fits,
    rows_table,
    students_table,
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
# A table stands between such comments, so that it can be written again without the words around it.
PLACE = re.compile(r"(<!-- recipe: ([\w-]+)(?: on (\w+))? -->\n).*?(<!-- end -->)", re.DOTALL)
# Likewise for the records of the suite `accuracy`, which lie in a folder beside that of the cells.
FITS_PLACE = re.compile(r"(<!-- fits: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
FITS_FOLDER = "bench"
FITS_TABLES = {"all": fits_table, "students": students_table, "minutes": minutes_table, "rows": rows_table}
MEASURES = {"the encoder": "accuracy", "the encoder and the strong linear model": "with_linear"}
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


def tables_of(question: Question, results: Results) -> dict[str, Grid]:
    """A table for each of MEASURES; none where nothing has been run."""
    found = found_cells(question, results)
    if not found:
        return {}
    base = found.get(next(iter(question.variants)), {})
    return {title: _table(found, base, measure) for title, measure in MEASURES.items()}


def _table(found: Found, base: Cells, measure: str) -> Grid:
    run = {task for cells in found.values() for task, _ in cells}
    tasks = [task for task in TASKS if task in run]
    rows = []
    for name, cells in found.items():
        values = {place: cell[measure] for place, cell in cells.items()}
        reference = {} if cells is base else {place: cell[measure] for place, cell in base.items()}
        row = [
            name,
            _seeds(cells),
            _seconds(cells),
            _masked_loss(cells),
        ]
        row += [_compared([task], values, reference) for task in tasks]
        rows.append([*row, _compared(tasks, values, reference)])
    rivals = {task: cell["linear"] for cells in found.values() for (task, _), cell in cells.items()}
    accuracies = [rivals[task]["accuracy"] for task in tasks]
    seconds = np.mean([rivals[task]["seconds"] for task in tasks])
    rows.append(
        ["strong linear model", "", f"{seconds:.0f}", "", *map(number, [*accuracies, np.mean(accuracies)])]
    )
    return Grid(["variant", "seeds", "seconds", "MLM loss", *tasks, "mean"], rows)


def _seeds(cells: Cells) -> str:
    counts = {sum(task == each for each, _ in cells) for task, _ in cells}
    return str(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def _seconds(cells: Cells) -> str:
    before = np.mean([cell["pretraining"]["seconds"] for cell in cells.values()])
    tasks = {task for task, _ in cells}
    each = [np.mean([cell["seconds"] for (name, _), cell in cells.items() if name == task]) for task in tasks]
    return f"{before:.0f} + {np.mean(each):.0f}"


def _masked_loss(cells: Cells) -> str:
    losses = [cell["pretraining"]["loss"] for cell in cells.values() if "loss" in cell["pretraining"]]
    return f"{np.mean(losses):.2f}" if losses else ""


def _compared(
    tasks: Sequence[str], values: Mapping[tuple[str, int], float], base: Mapping[tuple[str, int], float]
) -> str:
    """Mean over tasks and seeds, with its deviation or its difference to the base at equal seeds."""
    own = _by_seed(tasks, values)
    if not own:
        return ""
    mean = number(float(np.mean(list(own.values()))))
    if not base:
        return mean + (f" ± {np.std(list(own.values()), ddof=1):.3f}" if len(own) > 1 else "")
    other = _by_seed(tasks, base)
    differences = [own[seed] - other[seed] for seed in own if seed in other]
    if not differences:
        return mean
    spread = interval(differences)
    width = "" if spread is None else f" ± {spread.high - spread.mean:.3f}"
    return f"{mean} ({signed(float(np.mean(differences)))}{width})"


def _by_seed(tasks: Sequence[str], values: Mapping[tuple[str, int], float]) -> dict[int, float]:
    """Mean over the tasks for each seed that has them all."""
    seeds = sorted({seed for _, seed in values})
    whole = [seed for seed in seeds if all((task, seed) in values for task in tasks)]
    return {seed: float(np.mean([values[task, seed] for task in tasks])) for seed in whole}


def refresh(page: Path, folder: Path) -> list[str]:
    """Write the tables of a Markdown page again.

    Args:
        page: a table stands between `<!-- recipe: QUESTION -->` and `<!-- end -->`; QUESTION is its name,
            with ` on cuda` behind it what was trained on a GPU. Between `<!-- fits: TABLE -->` and
            `<!-- end -->` stands one of FITS_TABLES.
        folder: of the results.

    Returns:
        The names of the tables that were written.

    Raises:
        UserError: there is no such page, or it names a question or a table that there is not.
    """
    if not page.is_file():
        raise UserError(f"{page} does not exist; expected a Markdown file that has places for tables.")
    text = page.read_text(encoding="utf-8")
    places = [(name, device or "cpu") for _, name, device, _ in PLACE.findall(text)]
    questions = {place: questions_named([place[0]], place[1])[place[0]] for place in places}
    results = Runs(folder).by_settings() if places else {}
    fits = read_fits(folder.parent / FITS_FOLDER)
    names = []

    def answers(place: re.Match[str]) -> str:
        names.append(place[2])
        tables = tables_of(questions[place[2], place[3] or "cpu"], results)
        parts = [f"Accuracy of {title}:\n\n{block_markdown(grid)}\n\n" for title, grid in tables.items()]
        return place[1] + ("\n" + "".join(parts) if parts else "Not run yet.\n") + place[4]

    def reached(place: re.Match[str]) -> str:
        if place[2] not in FITS_TABLES:
            raise UserError(f"{page}: 'fits: {place[2]}' is unknown; there are {', '.join(FITS_TABLES)}.")
        names.append(f"fits: {place[2]}")
        grid = FITS_TABLES[place[2]](fits)
        return f"{place[1]}\n{block_markdown(grid) if grid.rows else 'Not measured yet.'}\n\n{place[3]}"

    write_text(page, FITS_PLACE.sub(reached, PLACE.sub(answers, text)))
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
                alone, together = (np.mean([cell[key] for cell in mine]) for key in MEASURES.values())
                panels.setdefault(task, []).append((float(seconds), float(alone), float(together)))
                linear[task] = mine[0]["linear"]["accuracy"]
    return {task: sorted(set(panels[task])) for task in TASKS if task in panels}, linear
