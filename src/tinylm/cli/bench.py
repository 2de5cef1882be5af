"""`tinylm bench`: speed beside the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import console, need, say
from tinylm.errors import UserError


def bench_command(
    suite: Annotated[str, typer.Option(help="cpu (training), inference, or gpu (training).")],
    json_file: Annotated[Path, typer.Option("--json", help="File for the results.")],
    rounds: Annotated[int, typer.Option(help="How often each side works, in turn.", min=1)] = 3,
    only: Annotated[str | None, typer.Option(help="Only these cases, as in mlm-bert1,mlm-small.")] = None,
) -> None:
    """Measure the library beside the authors' way on this machine.

    Example: `tinylm bench --suite inference --json inference.json`
    """
    if suite == "gpu":
        import torch

        if not torch.cuda.is_available():
            say("suite gpu: there is no CUDA GPU here, nothing was measured.")
            return
    need("dev", "transformers")
    from tinylm.bench.measure import table, write_json
    from tinylm.bench.suites import run_suite

    if not json_file.parent.is_dir():
        raise UserError(f"--json was {json_file}; expected a file in a folder that exists.")
    results = run_suite(suite, rounds, only.split(",") if only else ())
    write_json(json_file, results)
    console.print(table(results))
    for result in results:
        low, high = result.spread
        facts = ", ".join(f"{name} {fact}" for name, fact in result.details.items())
        say(f"{result.name}: ratio {low:.1f} to {high:.1f}, {facts}")
