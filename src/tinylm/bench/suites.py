"""The suites by name, and how one is run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch

from tinylm.bench import inference, training
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
        measure_case: measures one of them in so many rounds.
        threads: of PyTorch; None leaves its default.
        device: of which the rate is measured.
    """

    cases: Collection[str]
    measure_case: Callable[[str, int, Machine], Measured]
    threads: int | None = None
    device: torch.device = CPU


SUITES = {
    "cpu": Suite(training.CASES, training.measure_case),
    "inference": Suite(inference.CASES, inference.measure_case, inference.THREADS),
    "gpu": Suite(training.CASES, training.measure_gpu_case, device=training.CUDA),
}


def run_suite(name: str, rounds: int, only: Sequence[str] = ()) -> list[Measured]:
    """Measure the cases of a suite, or `only` some of them.

    Raises:
        UserError: an unknown suite or case.
    """
    if name not in SUITES:
        raise UserError(f"suite '{name}' is unknown; there are: {', '.join(SUITES)}.")
    suite = SUITES[name]
    for case in only:
        if case not in suite.cases:
            raise UserError(f"suite {name} has no case '{case}'; there are: {', '.join(suite.cases)}.")
    chosen = [case for case in suite.cases if not only or case in only]
    results = []
    with threads(suite.threads or torch.get_num_threads()), progress_bars() as bars:
        machine = measure_machine(suite.device)
        facts = {
            "threads": machine.threads,
            "rounds": rounds,
            "gflops_bf16": round(machine.bf16 / 1e9, 1),
            "gflops_fp32": round(machine.fp32 / 1e9, 1),
        }
        bar = bars.add(f"suite {name}", len(chosen))
        for case in chosen:
            bars.update(bar, info=case)
            result = suite.measure_case(case, rounds, machine)
            results.append(replace(result, details=facts | result.details))
            bars.update(bar, advance=1)
    return results
