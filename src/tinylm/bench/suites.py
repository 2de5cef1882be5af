"""The suites by name, and how one is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinylm.bench import ablation, accuracy, corpus, inference, int8, scale, select, tfidf, training
from tinylm.bench.measure import Machine, Measured, measure_machine, write_json
from tinylm.errors import UserError
from tinylm.ops.device import CPU
from tinylm.system.processes import threads
from tinylm.system.progress import Bars, progress_bars


@dataclass(frozen=True)
class Suite:
    """Cases that are measured together.

    Attributes:
        cases: their names.
        measure_case: measures one of them in a number of rounds; it may give several results.
        threads: of PyTorch; None leaves its default.
        device: of which the rate is measured.
    """

    cases: Collection[str]
    measure_case: Callable[[str, int, Machine], Measured | list[Measured]]
    threads: int | None = None
    device: torch.device = CPU


@dataclass(frozen=True)
class LongSuite:
    """Cases whose rounds take so long that each is kept at once, and not measured again by a later call.

    Attributes:
        cases: their names.
        measure_round: measures one of them in the round of a number from 0, and gives what JSON can hold.
        summary: the result of a case whose rounds these are.
        read: the rounds in the record of an earlier call, by case and number.
    """

    cases: Collection[str]
    measure_round: Callable[[str, int, Machine], dict[str, Any]]
    summary: Callable[[str, Sequence[dict[str, Any]]], Measured]
    read: Callable[[Path], dict[str, dict[int, dict[str, Any]]]]


SUITES: dict[str, Suite | LongSuite] = {
    "train-cpu": Suite(training.CASES, training.measure_case),
    "infer-cpu": Suite(inference.CASES, inference.measure_case, inference.THREADS),
    "train-gpu": Suite(training.CASES, training.measure_gpu_case, device=training.CUDA),
    "ablation": Suite(ablation.CASES, ablation.measure_case),
    "corpus": Suite(corpus.CASES, corpus.measure_case),
    "select": Suite(select.CASES, select.measure_case),
    "tfidf": Suite(tfidf.CASES, tfidf.measure_case, tfidf.THREADS),
    "int8": Suite(int8.CASES, int8.measure_case),
    "accuracy": LongSuite(accuracy.CASES, accuracy.measure_split, accuracy.summary, accuracy.read_splits),
    "scale": Suite(scale.CASES, scale.measure_case),
}
OLD_NAMES = {"cpu": "train-cpu", "inference": "infer-cpu", "gpu": "train-gpu"}


def can_run(name: str) -> bool:
    """Whether the machine has the device that a suite measures; of an unknown suite, yes."""
    suite = SUITES.get(OLD_NAMES.get(name, name))
    return not isinstance(suite, Suite) or suite.device.type == "cpu" or torch.cuda.is_available()


def run_suite(
    name: str,
    rounds: int,
    only: Sequence[str] = (),
    file: Path | None = None,
    settings: dict[str, Any] | None = None,
) -> tuple[Machine, list[Measured]]:
    """Measure the machine and the cases of a suite, or `only` some of them.

    Args:
        name: of the suite.
        rounds: how often each case is measured.
        only: cases; none for all.
        file: for the record. That of a long suite grows with every round, and what it holds is not measured
            again; any other is written at the end.
        settings: of the command, for the record.

    Raises:
        UserError: an unknown suite or case, or a file of something else that a long suite cannot add to.
    """
    name = OLD_NAMES.get(name, name)
    if name not in SUITES:
        raise UserError(f"suite '{name}' is unknown; there are: {', '.join(SUITES)}.")
    suite = SUITES[name]
    for case in only:
        if case not in suite.cases:
            raise UserError(f"suite {name} has no case '{case}'; there are: {', '.join(suite.cases)}.")
    chosen = [case for case in suite.cases if not only or case in only]
    found = suite.read(file) if isinstance(suite, LongSuite) and file is not None and file.exists() else {}

    def write(results: Sequence[Measured]) -> None:
        if file is not None:
            write_json(file, machine, results, settings or {})

    with progress_bars() as bars:
        if isinstance(suite, LongSuite):
            machine = measure_machine()
            return machine, _in_rounds(suite, chosen, rounds, machine, found, write, bars)
        with threads(suite.threads or torch.get_num_threads()):
            machine = measure_machine(suite.device)
            results = _in_cases(suite, chosen, rounds, machine, bars)
    write(results)
    return machine, results


def _in_cases(
    suite: Suite, chosen: Sequence[str], rounds: int, machine: Machine, bars: Bars
) -> list[Measured]:
    """All rounds of a case, then the next case."""
    results: list[Measured] = []
    bar = bars.add("cases", len(chosen))
    begin = time.monotonic()
    for done, case in enumerate(chosen):
        left = (time.monotonic() - begin) / done * (len(chosen) - done) if done else None
        bars.update(bar, info=case if left is None else f"{case}, about {left / 60:.0f} minutes left")
        found = suite.measure_case(case, rounds, machine)
        results += found if isinstance(found, list) else [found]
        bars.update(bar, advance=1)
    return results


def _in_rounds(
    suite: LongSuite,
    chosen: Sequence[str],
    rounds: int,
    machine: Machine,
    found: dict[str, dict[int, dict[str, Any]]],
    write: Callable[[Sequence[Measured]], None],
    bars: Bars,
) -> list[Measured]:
    """A round of all cases, then the next round; what is `found` is not measured, and stays in the record."""

    def result(case: str) -> Measured:
        return suite.summary(case, [found[case][number] for number in sorted(found[case])])

    missing = [
        (number, case) for number in range(rounds) for case in chosen if number not in found.get(case, {})
    ]
    bar = bars.add("rounds", len(missing))
    for number, case in missing:
        bars.update(bar, info=f"{case}, round {number + 1}")
        found.setdefault(case, {})[number] = suite.measure_round(case, number, machine)
        write([result(each) for each in suite.cases if each in found])
        bars.update(bar, advance=1)
    return [result(case) for case in chosen]
