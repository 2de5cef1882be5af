"""What all suites share: measuring in turn, the rate of the machine, the table and the JSON file.

A shared machine changes its speed from minute to minute, by a factor of two and more.
So ours and the references work in turn, a ratio is formed within each round, and the
median of these ratios is reported with the lowest and the highest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from tinylm.ops.device import CPU, processor_of
from tinylm.system import files
from tinylm.system.cores import cores

MILLISECONDS, SECONDS, WRONG = "ms", "s", "% wrong"  # units of which less is better
# Rows, inputs and outputs of the products that dominate a block of width 768.
SHAPES = ((3072, 768, 768), (3072, 768, 3072), (3072, 3072, 768))
GPU_SHAPES = ((8192, 8192, 8192),)  # the machine's rate, which those leave unused
REPEATS = 3


@dataclass(frozen=True)
class Machine:
    """This machine, and how fast it multiplies matrices.

    Attributes:
        processor: its name.
        threads: of PyTorch.
        bf16, fp32: operations per second.
    """

    processor: str
    threads: int
    bf16: float
    fp32: float

    @property
    def best(self) -> float:
        """The higher of both rates; without hardware for bf16 that is fp32."""
        return max(self.bf16, self.fp32)

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {
            "processor": self.processor,
            "cores": cores(),
            "threads": self.threads,
            "gflops_bf16": round(self.bf16 / 1e9, 1),
            "gflops_fp32": round(self.fp32 / 1e9, 1),
        }


@dataclass(frozen=True)
class Other:
    """The second reference.

    Attributes:
        name: what it is.
        value: in the unit of `Measured`.
        ratio: as there.
        spread: as there.
    """

    name: str
    value: float
    ratio: float
    spread: tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """One row of a suite.

    Attributes:
        name: of the case.
        ours: median over the rounds, in `unit`.
        reference: the same of the authors' way.
        ratio: how many times as fast ours is, median over the rounds.
        unit: "ms", "s" or "% wrong" (less is better), or a rate (more is better).
        limit: `ours` if the machine did nothing but the needed matrix products; None where products are
            not what takes the time.
        spread: lowest and highest ratio of any round.
        other: the second reference, if there is one.
        details: what else a reader needs to judge the figures.
    """

    name: str
    ours: float
    reference: float
    ratio: float
    unit: str
    limit: float | None
    spread: tuple[float, float]
    other: Other | None
    details: dict[str, Any]


def measure_machine(device: torch.device = CPU) -> Machine:
    """Time matrix products, on a CPU of the shapes in use; the best of each precision counts."""
    rates = (_product_rate(dtype, device) for dtype in (torch.bfloat16, torch.float32))
    return Machine(processor_of(device), torch.get_num_threads(), *rates)


def _product_rate(dtype: torch.dtype, device: torch.device) -> float:
    best = 0.0
    for rows, inputs, outputs in SHAPES if device.type == "cpu" else GPU_SHAPES:
        x, weight = (torch.randn(n, inputs, device=device).to(dtype) for n in (rows, outputs))

        def product(x: torch.Tensor = x, weight: torch.Tensor = weight) -> None:
            torch.mm(x, weight.T)
            if device.type == "cuda":
                torch.cuda.synchronize()

        seconds = alternate([product], REPEATS)
        best = max(best, 2 * rows * inputs * outputs / seconds[1:].min())
    return best


def alternate(
    works: Sequence[Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> np.ndarray:
    """Do all `works` in turn, round after round.

    Returns:
        Seconds, `float64 [rounds, works]`.
    """
    seconds = np.zeros((rounds, len(works)))
    for row in seconds:
        for column, work in enumerate(works):
            start = clock()
            work()
            row[column] = clock() - start
    return seconds


def summarise(
    name: str, values: np.ndarray, unit: str, limit: float | None, other: str | None, details: dict[str, Any]
) -> Measured:
    """Medians of `values` (`[rounds, 3]`: ours, the reference, the `other` if any) and of their ratios."""
    speed = 1 / values if unit in (MILLISECONDS, SECONDS, WRONG) else values
    ratios = speed[:, :1] / speed[:, 1:]
    medians, median_ratios = (np.median(array, axis=0).tolist() for array in (values, ratios))
    spreads = list(zip(ratios.min(0).tolist(), ratios.max(0).tolist(), strict=True))
    second = None if other is None else Other(other, medians[2], median_ratios[1], spreads[1])
    ours, reference = medians[:2]
    return Measured(name, ours, reference, median_ratios[0], unit, limit, spreads[0], second, details)


def table(results: Sequence[Measured]) -> Table:
    """The results for a terminal."""
    other = results[0].other
    also = f"other: {other.name}; " if other else ""
    out = Table(caption=f"{also}ratios above 1: ours is better")
    columns = ("case", "ours", "reference", "ratio", *(("other", "ratio") if other else ()), "limit", "unit")
    for column in columns:
        words = column in ("case", "unit")
        out.add_column(column, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for result in results:
        second = (result.other.value, result.other.ratio) if result.other else ()
        numbers = (result.ours, result.reference, result.ratio, *second, result.limit)
        out.add_row(result.name, *map(_number, numbers), result.unit)
    return out


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def write_json(path: Path, machine: Machine, results: Sequence[Measured], settings: dict[str, Any]) -> None:
    """Write the record of a suite; an earlier file stays until the new one is complete."""
    found = [asdict(result) for result in results]
    record = files.record_of("bench", settings=settings, machine=machine.facts(), results=found)
    files.write_json(path, record, indent=2)
