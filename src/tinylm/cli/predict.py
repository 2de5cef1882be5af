"""`tinylm predict`: label one text or a stream of them, however long."""

from __future__ import annotations

import csv
import itertools
import json
import os
import queue
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from tinylm.cli.common import (
    DATA,
    Address,
    EngineName,
    ModelFolder,
    Settings,
    TextColumns,
    TextEncoding,
    columns_fitted_on,
    counts,
    record_of_fit,
    remark,
    say,
)
from tinylm.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from tinylm.infer.predictor import Predictor

    _Found = tuple[np.ndarray, np.ndarray | None]

STDIN = "-"
BATCH = 512  # rows in memory
SEPARATOR = "; "  # between several labels in a cell


class _Sink(Protocol):
    def __call__(self, line: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class _Row:
    """A row to predict: its number, the columns to copy, its text, and why it cannot be used."""

    number: int
    kept: dict[str, Any]
    text: str
    reason: str | None


def predict_command(
    model: ModelFolder,
    data: Annotated[
        str,
        typer.Argument(
            help="A text, a table, a text file with a text per line, hf:NAME (a data set of the HuggingFace"
            " hub), or - for standard input.",
            metavar="DATA",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="CSV or JSONL file to write instead of printing.", metavar="FILE")
    ] = None,
    text: TextColumns = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Column to copy to the output, such as an id. May be given several times.",
            metavar="COLUMN",
            rich_help_panel=DATA,
        ),
    ] = None,
    encoding: TextEncoding = None,
    probabilities: Annotated[
        bool, typer.Option(help="Also write the probability of every label to --out.")
    ] = False,
    engine: EngineName = "local",
    address: Address = None,
    settings: Settings = None,
) -> None:
    """Predict the label of a text, or of every row of a table, in the order of the rows.

    A line holds the label, its probability and the text. A row without a text gets a reason instead. A
    question mark marks texts most of which the model has not met in pre-training: their labels are guesses.

    Example: `tinylm predict model "The striker scored twice in the final."`
    """
    from tinylm.export.runtime import load_predictor

    if out is not None and out.suffix not in (".csv", ".jsonl"):
        raise UserError(f"--out was {out}; expected a name that ends in .csv or .jsonl.")
    if out is not None and (out.exists() or not out.parent.is_dir()):
        raise UserError(f"--out was {out}; expected a new file in a folder that exists.")
    if engine != "local" and data == STDIN:
        raise UserError(
            f"standard input is predicted row by row as it comes, by the engine local; expected a file for"
            f" the engine {engine}."
        )
    committee, record = load_predictor(model), record_of_fit(model)
    rows = _rows(data, columns_fitted_on(model, "text", text), keep or [], encoding)
    unusable: Counter[str] = Counter()
    number = 0
    batches = _batches(rows, as_it_comes=data == STDIN)
    with ExitStack() as stack:
        found: Iterator[tuple[list[_Row], _Found]]
        if engine == "local":
            found = ((batch, _found(committee, _usable(batch))) for batch in batches)
        else:
            found = stack.enter_context(_found_elsewhere(engine, address, model, batches))
        sink = stack.enter_context(_printing() if out is None else _writing(out))
        for batch, each in found:
            for line in _predictions(committee, record, batch, each, probabilities and out is not None):
                sink(line)
            unusable.update(row.reason for row in batch if row.reason)
            number += len(batch)
        if number == unusable.total():
            raise UserError(f"{_named(data)} holds no usable text ({counts(unusable) or 'no rows'}).")
    if unusable:
        remark(f"rows without a label: {counts(unusable)}")
    if out is not None:
        say(f"{number:,} predictions in {out}")


def _rows(data: str, columns: list[str], keep: list[str], encoding: str | None) -> Iterator[_Row]:
    from tinylm.text.prefix import why_no_text

    if why_no_text(data) == "not UTF-8":  # Python reads an argument like this where the locale is ASCII
        data = os.fsencode(data).decode("utf-8", "surrogateescape")
    if reason := why_no_text(data):
        raise UserError(f"the text to predict cannot be used ({reason}); expected words.")
    if data != STDIN and not data.startswith("hf:"):
        path = Path(data)
        try:
            exists = path.exists()
        except OSError:  # a long text is no valid file name
            exists = False
        if not exists:
            is_path = len(data) < 200 and re.fullmatch(r"(~|\.{0,2})/\S*", data)
            if (
                is_path or Path(data[-200:]).suffix
            ):  # also a name with spaces, which is hardly meant as a text
                from tinylm.text.tables import file_format

                if is_path or file_format(Path(data[-200:])):
                    raise UserError(
                        f"file {data} does not exist; if it is a text, pipe it:"
                        " echo TEXT | tinylm predict ... -"
                    )
            yield _Row(1, {}, data, None)
            return
    # Here and not above: predicting a single text needs nothing that reads tables.
    from tinylm.text.labelled import open_rows
    from tinylm.text.tables import Problem, text_of

    table = open_rows(data, [*columns, *keep], encoding=encoding, as_it_comes=True)
    for row in table:
        found = text_of(row, columns)
        kept = {column: row.get(column) for column in keep}
        if isinstance(found, Problem):
            yield _Row(row.number, kept, "", found.reason)
        else:
            yield _Row(row.number, kept, found, None)


def _batches(rows: Iterator[_Row], as_it_comes: bool) -> Iterator[list[_Row]]:
    """Rows in batches: of standard input those that have arrived, so that each is predicted at once."""
    if not as_it_comes:
        while batch := list(itertools.islice(rows, BATCH)):
            yield batch
        return
    waiting: queue.Queue[_Row | BaseException | None] = queue.Queue(BATCH)

    def read() -> None:
        try:
            for row in rows:
                waiting.put(row)
            waiting.put(None)
        except BaseException as error:  # raised where the rows are used
            waiting.put(error)

    threading.Thread(target=read, daemon=True).start()
    end: BaseException | bool = False
    while not end:
        batch = []
        found = waiting.get()
        while isinstance(found, _Row):
            batch.append(found)
            if len(batch) == BATCH or waiting.empty():
                break
            found = waiting.get()
        else:
            end = found or True
        if batch:
            yield batch
    if isinstance(end, BaseException):
        raise end


def _usable(rows: list[_Row]) -> list[str]:
    return [row.text for row in rows if row.reason is None]


def _found(predictor: Predictor, texts: list[str]) -> _Found:
    """What a model says of texts: probabilities, and whether their coverage is low if it can tell."""
    low = None if predictor.rare is None else predictor.low_coverage(texts)
    return predictor.predict_proba(texts), low


@contextmanager
def _found_elsewhere(
    engine: str, address: str | None, model: Path, batches: Iterator[list[_Row]]
) -> Iterator[Iterator[tuple[list[_Row], _Found]]]:
    """Batches with what the workers of an engine say of them, in their order."""
    from tinylm.system.processes import in_order
    from tinylm.system.ray_engine import engine_named

    with engine_named(engine, address) as running:
        places = running.places()
        with running.workers(places) as submit:
            # A few more batches than workers are read ahead, so that none waits for a slower one.
            ahead, tee = itertools.tee(batches)
            jobs = ((model.resolve(), _usable(batch)) for batch in ahead)
            yield zip(tee, in_order(submit, _found_by_worker, jobs, 2 * places), strict=True)


def _found_by_worker(model: Path, texts: list[str]) -> _Found:
    return _found(_loaded(model), texts)


@lru_cache(maxsize=1)
def _loaded(model: Path) -> Predictor:
    from tinylm.export.runtime import load_predictor

    return load_predictor(model)


def _predictions(
    committee: Predictor, record: dict[str, Any], rows: list[_Row], of_usable: _Found, every_label: bool
) -> Iterator[dict[str, Any]]:
    """The output for each row; all have the same entries."""
    from tinylm.infer.predictor import decide

    found, low = of_usable
    decisions = decide(found, committee.thresholds)
    names = committee.labels
    columns = record.get("settings", {}).get("label")
    place = 0
    for row in rows:
        labels = [] if row.reason else [names[label] for label in decisions[place].nonzero()[0]]
        line: dict[str, Any] = {"row": row.number, "label": None, "probability": None}
        if low is not None:
            line["low_coverage"] = None
        line |= {"text": row.text, "reason": row.reason}
        if isinstance(columns, list) and len(columns) > 1:  # in the form of the table that it was fitted on
            line |= {str(name): None if row.reason else int(name in labels) for name in names}
        if every_label:
            line["probabilities"] = dict.fromkeys(committee.label_names)
        if row.reason is None:
            line["label"] = labels if committee.multi_label else labels[0]
            # With several labels, that of the least probable one; without a label, that of the most probable.
            least = found[place][decisions[place]].min() if labels else found[place].max()
            line["probability"] = round(float(least), 4)
            if low is not None:
                line["low_coverage"] = bool(low[place])
            if every_label:
                values = [round(float(value), 4) for value in found[place]]
                line["probabilities"] = dict(zip(committee.label_names, values, strict=True))
            place += 1
        kept = {f"{name} (kept)" if name in line else name: value for name, value in row.kept.items()}
        yield {"row": line.pop("row")} | kept | line


@contextmanager
def _printing() -> Iterator[_Sink]:
    def write(line: dict[str, Any]) -> None:
        kept = list(line.values())[1 : list(line).index("label")]
        label, probability = "", ""
        if line["reason"]:
            text = f"({line['reason']})"
        else:
            label, probability = _cell(line["label"]), f"{line['probability']:.3f}"
            text = " ".join(line["text"].split())[:80]
        mark = ["?"] if line.get("low_coverage") else []
        # A program that reads the pipe gets each line as soon as it is there.
        print(*kept, label, probability, *mark, text, sep="\t", flush=True)

    yield write


@contextmanager
def _writing(path: Path) -> Iterator[_Sink]:
    """Write predictions to a file, which appears when it is complete."""
    from tinylm.system.files import new_file

    with new_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)

        def write(line: dict[str, Any]) -> None:
            if path.suffix == ".jsonl":
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                return
            each = line.pop("probabilities", {})
            if file.tell() == 0:
                table.writerow([*line, *(f"probability of {name}" for name in each)])
            table.writerow([*map(_cell, line.values()), *each.values()])

        yield write


def _cell(value: Any) -> Any:
    return SEPARATOR.join(map(str, value)) if isinstance(value, list) else value


def _named(text: str) -> str:
    return "standard input" if text == "-" else f"file {text}"
