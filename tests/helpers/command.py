"""The command line as people use it, through the real entry point."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers.inputs import WORDS
from tinylm import cli
from tinylm.text.tasks import load_task
from tinylm.text.tokenizer import load_tokenizer

NOUNS = {topic: WORDS[topic] for topic in ("farm", "sea")}
# What makes a model that is trained in a second.
TINY = "--vocabulary 300 --layers 1 --heads 1 --epochs 1 --recipe fast"
VERBS = "awaits follows leaves meets needs passes reaches touches"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def tinylm(command: str, *more: str | Path) -> Outcome:
    """Run a command line as the console script does; `more` is appended as it is."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, "argv", ["tinylm", *shlex.split(command), *map(str, more)])
        cli.main()
    return Outcome(end.value.code or 0, out.getvalue(), err.getvalue())


def done(command: str, *more: str | Path) -> Outcome:
    """Run a command line that must succeed."""
    outcome = tinylm(command, *more)
    assert outcome.code == 0, outcome.err
    return outcome


def refused(outcome: Outcome) -> str:
    """The one sentence of a command that ended with a user's mistake."""
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.out + outcome.err
    # A progress bar that vanishes may leave an empty line; before it stands what was read.
    *before, line = outcome.err.strip().splitlines()
    assert not any("Error" in other for other in before)
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "tinylm.json").read_text(encoding="utf-8"))
    return record


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def sentence(topic: str, chance: random.Random) -> str:
    # The first nouns are frequent, the last rare, so that selections have something to avoid.
    subject, thing = chance.choices(NOUNS[topic].split(), weights=range(15, 0, -1), k=2)
    return f"the {subject} {chance.choice(VERBS.split())} the {thing}"


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def tokens_of_task(tokenizer_folder: Path, table: Path) -> set[int]:
    """The token ids of all texts of a table."""
    task = load_task(table)
    return set(load_tokenizer(tokenizer_folder).encode(task.train_texts + task.test_texts).ids.tolist())
