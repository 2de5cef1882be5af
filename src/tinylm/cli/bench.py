"""`tinylm bench`: speed beside the reference."""

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
            " trick of training brings. corpus, select: preparing a corpus. recipe, int8: what parts of"
            " training bring and cost, in seconds and accuracy.",
            metavar="NAME",
        ),
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results to this file.", metavar="FILE")
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

    docs/performance.md explains the suites and their references.

    Example: `tinylm bench --suite infer-cpu --json infer-cpu.json`
    """
    if json_file is not None and not json_file.parent.is_dir():
        raise UserError(f"--json was {json_file}; expected a file in a folder that exists.")
    need("dev", "transformers")
    from tinylm.bench.measure import table, write_json
    from tinylm.bench.suites import can_run, run_suite

    if not can_run(suite):
        say(f"Nothing was measured: suite {suite} needs a CUDA GPU, and there is none here.")
        return
    machine, results = run_suite(suite, rounds, only.split(",") if only else ())
    if json_file is not None:
        write_json(json_file, machine, results, settings_of(context))
    console.print(table(results))
    say(", ".join(f"{name} {fact}" for name, fact in machine.facts().items()))
    for result in results:
        low, high = result.spread
        facts = "".join(f", {name} {fact}" for name, fact in result.details.items())
        say(f"{result.name}: ratio {low:.2f} to {high:.2f}{facts}")
