"""`tinylm bench`: speed beside the reference, and accuracy within a time beside rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import Settings, console, need, say, settings_of
from tinylm.errors import UserError


def bench_command(
    context: typer.Context,
    suite: Annotated[
        str,
        typer.Option(
            help="What to measure. train-cpu, train-gpu: training. infer-cpu: prediction. ablation: what each"
            " trick of training brings. corpus, select: preparing a corpus. int8: what products in int8"
            " change in training. scale: all cores and large corpora. accuracy: what a fit reaches in a time,"
            " beside linear models, a split where others have a round.",
            metavar="NAME",
        ),
    ],
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Also write the results to this file. accuracy: after each split, and splits that the file"
            " holds are not measured again.",
            metavar="FILE",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="How often each side is measured, in turn.", min=1, metavar="NUMBER")
    ] = 3,
    only: Annotated[
        str | None,
        typer.Option(help="Measure only these cases, such as mlm-bert1,mlm-small.", metavar="NAMES"),
    ] = None,
    settings: Settings = None,
) -> None:
    """Measure the speed of the library beside that of a reference, on this machine.

    docs/performance.md and docs/scale.md explain the suites and their references, docs/recipe.md the suite
    accuracy.

    Example: `tinylm bench --suite infer-cpu --json infer-cpu.json`
    """
    if json_file is not None and not json_file.parent.is_dir():
        raise UserError(f"--json was {json_file}; expected a file in a folder that exists.")
    need("dev", "transformers")
    from tinylm.bench.measure import table
    from tinylm.bench.suites import can_run, run_suite

    if not can_run(suite):
        say(f"Nothing was measured: suite {suite} needs a CUDA GPU, and there is none here.")
        return
    machine, measured = run_suite(
        suite, rounds, only.split(",") if only else [], json_file, settings_of(context)
    )
    console.print(table(measured))
    say(", ".join(f"{name} {fact}" for name, fact in machine.facts().items()))
    for result in measured:
        low, high = result.spread
        # A list, such as of splits, is for the file.
        details = {n: len(d) if isinstance(d, list) else d for n, d in result.details.items()}
        facts = "".join(f", {name} {detail}" for name, detail in details.items())
        say(f"{result.name}: ratio {low:.2f} to {high:.2f}{facts}")
