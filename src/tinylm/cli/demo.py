"""`tinylm demo`: the main job on the built-in sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import Seed, Settings


def demo_command(
    out: Annotated[
        Path, typer.Option(help="Folder for the report and the classifier.", metavar="FOLDER")
    ] = Path("demo"),
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """Show in a few minutes what tinylm does: pre-train, fine-tune, compare and combine models.

    The texts are 10,033 openings of Wikipedia articles, the built-in sample `vital`.

    Example: `tinylm demo`
    """
    from tinylm.workflows.demo import run_demo

    run_demo(out, seed)
