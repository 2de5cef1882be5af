"""`tinylm demo`: the main job on the built-in sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import Seed, Settings


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for the report and the classifier.")] = Path("demo"),
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """Run the whole story on the embedded corpus in a few minutes.

    Example: `tinylm demo`
    """
    from tinylm.workflows.demo import run_demo

    run_demo(out, seed)
