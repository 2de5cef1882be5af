"""The suites by name, and how one is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from tinylm.bench import ablation, accuracy, corpus, inference, int8, scale, select, training
from tinylm.bench.measure import Machine, Measured, measure_machine
from tinylm.errors import UserError
from tinylm.ops.device import CPU
from tinylm.system.processes import threads
from tinylm.system.progress import progress_bars


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


SUITES = {
    "train-cpu": Suite(training.CASES, training.measure_case),
    "infer-cpu": Suite(inference.CASES, inference.measure_case, inference.THREADS),
    "train-gpu": Suite(training.CASES, training.measure_gpu_case, device=training.CUDA),
    "ablation": Suite(ablation.CASES, ablation.measure_case),
    "corpus": Suite(corpus.CASES, corpus.measure_case),
    "select": Suite(select.CASES, select.measure_case),
    "int8": Suite(int8.CASES, int8.measure_case),
    "accuracy": Suite(accuracy.CASES, accuracy.measure_case),
    "scale": Suite(scale.CASES, scale.measure_case),
}
OLD_NAMES = {"cpu": "train-cpu", "inference": "infer-cpu", "gpu": "train-gpu"}


def can_run(name: str) -> bool:
    """Whether the machine has the device that a suite measures; of an unknown suite, yes."""
    suite = SUITES.get(OLD_NAMES.get(name, name))
    return suite is None or suite.device.type == "cpu" or torch.cuda.is_available()


def run_suite(name: str, rounds: int, only: Sequence[str] = ()) -> tuple[Machine, list[Measured]]:
    """Measure the machine and the cases of a suite, or `only` some of them.

    Raises:
        UserError: an unknown suite or case.
    """
    name = OLD_NAMES.get(name, name)
    if name not in SUITES:
        raise UserError(f"suite '{name}' is unknown; there are: {', '.join(SUITES)}, recipe.")
    suite = SUITES[name]
    for case in only:
        if case not in suite.cases:
            raise UserError(f"suite {name} has no case '{case}'; there are: {', '.join(suite.cases)}.")
    chosen = [case for case in suite.cases if not only or case in only]
    results: list[Measured] = []
    with threads(suite.threads or torch.get_num_threads()), progress_bars() as bars:
        machine = measure_machine(suite.device)
        bar = bars.add(f"suite {name}", len(chosen))
        begin = time.monotonic()
        for done, case in enumerate(chosen):
            left = (time.monotonic() - begin) / done * (len(chosen) - done) if done else None
            bars.update(bar, info=case if left is None else f"{case}, about {left / 60:.0f} minutes left")
            found = suite.measure_case(case, rounds, machine)
            results += found if isinstance(found, list) else [found]
            bars.update(bar, advance=1)
    return machine, results
