"""`tinylm predict`: label one text or a stream of them, however long."""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from tinylm.cli.common import Settings, TextColumn, counts, print_notes, say
from tinylm.errors import UserError

if TYPE_CHECKING:
    from tinylm.infer.committee import Committee

BATCH = 512  # texts in memory
SEPARATOR = "; "  # between several labels in a cell


class _Sink(Protocol):
    def __call__(self, answer: dict[str, Any]) -> None: ...


def predict_command(
    model: Annotated[Path, typer.Argument(help="Folder of a classifier or a committee.")],
    data: Annotated[
        str, typer.Argument(help="A text, a file of texts (txt, CSV, TSV, JSONL, parquet), hf:NAME or -.")
    ],
    out: Annotated[Path | None, typer.Option(help="CSV or JSONL file for the answers.")] = None,
    text: TextColumn = "text",
    probabilities: Annotated[
        bool, typer.Option(help="In --out, the probability of every label, not only of the answer.")
    ] = False,
    settings: Settings = None,
) -> None:
    """Label a text or all texts of a file, of standard input or of a data set; memory stays constant.

    Answers whose text the model hardly knows a word of are marked: they are guesses.

    Example: `tinylm predict committee "The striker scored twice in the final."`
    """
    from tinylm.infer.committee import load_committee

    if out is not None and out.suffix not in (".csv", ".jsonl"):
        raise UserError(f"--out was {out}; expected a name that ends in .csv or .jsonl.")
    if out is not None and (out.exists() or not out.parent.is_dir()):
        raise UserError(f"--out was {out}; expected a new file in a folder that exists.")
    committee = load_committee(model)
    unusable: Counter[str] = Counter()
    rows = _rows(data, text, unusable)
    number = 0
    with _printing() if out is None else _writing(out) as sink:
        while batch := list(itertools.islice(rows, BATCH)):
            for answer in _answers(committee, batch, probabilities and out is not None):
                sink(answer)
                number += 1
        if not number:
            raise UserError(f"{_named(data)} holds no usable text ({counts(unusable) or 'no rows'}).")
    print_notes(unusable, [])
    if out is not None:
        say(f"{number:,} answers in {out}")


def _rows(text: str, text_column: str, unusable: Counter[str]) -> Iterator[tuple[int, str]]:
    """The texts that `predict` is asked about, with their row; those without one are counted."""
    from tinylm.text.corpus import HUB
    from tinylm.text.labelled import rows_of
    from tinylm.text.tables import STDIN, file_format, why_unusable

    if reason := why_unusable(text):
        raise UserError(f"the text to predict cannot be used ({reason}); expected words.")
    if text != STDIN and not text.startswith(HUB):
        path = Path(text)
        try:
            exists = path.exists()
        except OSError:  # a long text is no valid file name
            exists = False
        if not exists:
            if file_format(Path(text[-200:])) and " " not in text:
                raise UserError(f"file {text} does not exist.")
            yield 1, text
            return
        if path.is_dir():
            raise UserError(f"{text} is a folder; expected a text or a file of texts.")
    for row, values in rows_of(text, [text_column]):
        if reason := why_unusable(values.get(text_column)):
            unusable[reason] += 1
        else:
            yield row, values[text_column]


def _answers(
    committee: Committee, rows: list[tuple[int, str]], every_label: bool
) -> Iterator[dict[str, Any]]:
    from tinylm.infer.evaluation import UNFAMILIAR

    texts = [text for _, text in rows]
    found = committee.probabilities(texts)
    given = committee.given(found)
    unseen = None if committee.token_counts is None else committee.hardly_seen(texts) >= UNFAMILIAR
    for i, (row, text) in enumerate(rows):
        labels = [committee.label_names[label] for label in given[i].nonzero()[0]]
        answer: dict[str, Any] = {
            "row": row,
            "label": labels if committee.thresholds is not None else labels[0],
            # Of several labels the least sure one; of none, how sure the model is of the likeliest.
            "probability": round(float(found[i][given[i]].min() if labels else found[i].max()), 4),
        }
        if unseen is not None:
            answer["hardly_seen"] = bool(unseen[i])
        answer["text"] = text
        if every_label:
            answer["probabilities"] = {
                name: round(float(value), 4)
                for name, value in zip(committee.label_names, found[i], strict=True)
            }
        yield answer


@contextmanager
def _printing() -> Iterator[_Sink]:
    def write(answer: dict[str, Any]) -> None:
        mark = "?\t" if answer.get("hardly_seen") else ""
        text = " ".join(str(answer["text"]).split())[:80]
        print(f"{_cell(answer['label'])}\t{answer['probability']:.3f}\t{mark}{text}")

    yield write


@contextmanager
def _writing(path: Path) -> Iterator[_Sink]:
    """Write answers to a file, which appears when all are there."""
    from tinylm.system.files import new_file

    with new_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)

        def write(answer: dict[str, Any]) -> None:
            if path.suffix == ".jsonl":
                file.write(json.dumps(answer, ensure_ascii=False) + "\n")
                return
            each = answer.pop("probabilities", {})
            if file.tell() == 0:
                table.writerow([*answer, *(f"probability of {name}" for name in each)])
            table.writerow([*map(_cell, answer.values()), *each.values()])

        yield write


def _cell(value: Any) -> Any:
    return SEPARATOR.join(value) if isinstance(value, list) else value


def _named(text: str) -> str:
    return "standard input" if text == "-" else f"file {text}"
